"""From what a user writes in a call to what is sent: bound arguments, references, identity."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dflow.attempts.calls import Call, swap
from dflow.core.records import Need, Upstream
from dflow.engine.futures import TaskFuture
from dflow.engine.scope import Scope
from dflow.errors import ParameterError
from dflow.messages import Ref
from dflow.results.fingerprints import NoFingerprint, fingerprint

T = TypeVar("T")
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class unmapped(Generic[T]):  # noqa: N801  (reads as a word in a call)
    """Marks an argument of ``map`` that is the same for every item.

    >>> unmapped([1, 2]).value
    [1, 2]
    """

    def __init__(self, value: T) -> None:
        self.value = value


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call, what it depends on, and what its identity is made from."""

    call: Call
    upstreams: tuple[Upstream, ...]
    inputs: Any


def called(function: Callable[..., Any]) -> str:
    """Return the name of a function; of a callable object that has none, the name of its class."""
    return str(getattr(function, "__name__", type(function).__name__))


def bind(
    function: Callable[..., Any], signature: inspect.Signature, args: Any, kwargs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments, by name wherever that is possible. Raises `ParameterError`."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ParameterError(
            f"'{called(function)}' cannot be called like this: {error}. "
            f"Its parameters are {signature}."
        ) from None
    if all(parameter.kind in _BY_NAME for parameter in signature.parameters.values()):
        return (), dict(bound.arguments)
    return bound.args, dict(bound.kwargs)


def prepare(
    scope: Scope,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wait_for: Any,
) -> Prepared:
    """Return a call with references in the place of futures."""
    sent, upstreams = referred(scope, (args, dict(kwargs)))
    call = Call(function, sent[0], sent[1], has_refs=bool(upstreams))
    return Prepared(call, (*upstreams, *waits(scope, wait_for)), sent)


def referred(scope: Scope, value: T) -> tuple[T, tuple[Upstream, ...]]:
    """Return `value` with references in the place of futures, and whom they refer to.

    The future of another session (of another flow run) is waited for, and its value put in its place.
    """
    found: dict[str, Upstream] = {}

    def refer(future: TaskFuture[Any]) -> Any:
        if not scope.owns(future.scope):
            return future.result()
        found[future.task_run_id] = Upstream(future.task_run_id)
        return Ref(future.task_run_id)

    try:
        sent: T = swap(value, refer, TaskFuture)
    except RecursionError:
        raise ParameterError(
            "An argument contains itself, or is nested too deep to look for futures in it. "
            "Pass it in pieces."
        ) from None
    return sent, tuple(found.values())


def values_of(value: T) -> T:
    """Return `value` with the values of futures in their places, waiting for them."""
    sent: T = swap(value, lambda future: future.result(), TaskFuture)
    return sent


async def until_final(value: Any, *, native: bool) -> None:
    """Wait until all futures in a value are final, however they end."""
    found: list[TaskFuture[Any]] = []
    swap(value, found.append, TaskFuture)
    for future in found:
        await future.until_final(native=native)


def await_all(wait_for: Any) -> None:
    """Wait for futures that must have completed. Raises what they raised."""
    swap([wait_for], lambda future: future.result(), TaskFuture)


def waits(scope: Scope, wait_for: Any) -> tuple[Upstream, ...]:
    """Return the upstreams that ``wait_for=`` names. Raises `ParameterError`."""
    if wait_for is None:
        return ()
    futures: list[TaskFuture[Any]] = []
    swap([wait_for], futures.append, TaskFuture)
    if not futures and wait_for:
        raise ParameterError(f"wait_for= takes futures from .submit() or .map(), not {wait_for!r}.")
    for future in futures:
        if not scope.owns(future.scope):
            future.result()
    return tuple(
        Upstream(future.task_run_id, Need.WAIT) for future in futures if scope.owns(future.scope)
    )


def prepare_map(
    scope: Scope,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wait_for: Any,
) -> tuple[list[Prepared], tuple[Upstream, ...]]:
    """Return a call for each item of a map, and the upstreams that all of them have.

    Raises `ParameterError` when nothing is mapped or the lengths differ.
    """
    columns = {name: _column(value) for name, value in [*enumerate(args), *kwargs.items()]}
    lengths = {name: len(items) for name, items in columns.items() if items is not None}
    _check_lengths(function, lengths)
    constants = {
        name: value.value if isinstance(value, unmapped) else value
        for name, value in kwargs.items()
        if columns[name] is None
    }
    shared, common = referred(scope, constants)
    shared_key = _key(shared)
    prepared = []
    for index in range(next(iter(lengths.values()))):
        item_args = tuple(_pick(columns[i], index, value) for i, value in enumerate(args))
        item_kwargs = {
            name: items[index] for name, items in columns.items() if items and isinstance(name, str)
        }
        sent, own = referred(scope, (item_args, item_kwargs))
        call = Call(function, sent[0], sent[1], shared, has_refs=bool(own or common))
        prepared.append(Prepared(call, own, (shared_key, *sent)))
    return prepared, (*common, *waits(scope, wait_for))


def _pick(items: Sequence[Any] | None, index: int, value: Any) -> Any:
    if items is not None:
        return items[index]
    return value.value if isinstance(value, unmapped) else value


def _key(shared: Mapping[str, Any]) -> Any:
    """Return what stands for the shared arguments in the identity of each item; made only once."""
    try:
        return fingerprint(shared)
    except NoFingerprint:
        return object()


def _check_lengths(function: Callable[..., Any], lengths: Mapping[Any, int]) -> None:
    if not lengths:
        raise ParameterError(
            f"'{called(function)}.map' got nothing to map over: give at least one argument that is "
            "a list or another iterable, or use .submit()."
        )
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"'{name}' has {length}" for name, length in lengths.items())
        raise ParameterError(
            f"'{called(function)}.map' got lists of different lengths: {shown}. "
            "Wrap what is the same for every item in unmapped(...)."
        )


def _column(value: Any) -> Sequence[Any] | None:
    """Return the items of an argument that is mapped, or None for one that is the same for all."""
    if isinstance(value, TaskFuture):
        value = value.result()
    if isinstance(value, unmapped | str | bytes | bytearray | Mapping) or _is_whole(value):
        return None
    if isinstance(value, list | tuple | range):
        return value
    if not isinstance(value, Iterable) or getattr(value, "ndim", None) == 0:
        return None  # an array without dimensions says that it is iterable, and is not
    return list(value)


def _is_whole(value: Any) -> bool:
    """Tell whether a value is iterable, but one thing to its users: a data frame, a model."""
    for module, name in (
        ("pandas", "DataFrame"),
        ("polars", "DataFrame"),
        ("pydantic", "BaseModel"),
    ):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(value, kind):
            return True
    return False
