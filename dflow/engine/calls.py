"""From what a user writes in a call to what is sent: bound arguments, references, identity."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from dflow.attempts.calls import ATOMS, Call, Quoted, swap
from dflow.attempts.failures import Failure
from dflow.core.records import Need, Upstream
from dflow.engine.annotations import Annotation, allow_failure, opaque, quote
from dflow.engine.future_lists import TaskFutureList
from dflow.engine.futures import TaskFuture
from dflow.engine.identity import Known, known_by
from dflow.engine.scope import Scope
from dflow.errors import MissingResult, ParameterError
from dflow.messages import Ref
from dflow.states import State

T = TypeVar("T")
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
LEAVES = (TaskFuture, State, Annotation, TaskFutureList)
"""What stands for other values in the arguments of a call."""


class Prepared(Struct, frozen=True):
    """A call, what it depends on, and what is known of its inputs, for its identity."""

    call: Call
    upstreams: tuple[Upstream, ...]
    known: Known


def called(function: Callable[..., Any]) -> str:
    """Return the name of a function; of a partial the name of what is inside, of an object its class's."""
    while isinstance(function, partial):
        function = function.func
    name = str(getattr(function, "__name__", type(function).__name__))
    return "lambda" if name == "<lambda>" else name


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


class Binder:
    """Binds the arguments of one function, quickly where they are given in their order."""

    def __init__(self, function: Callable[..., Any], signature: inspect.Signature) -> None:
        self._function = function
        self._signature = signature
        parameters = signature.parameters.values()
        plain = all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in parameters)
        self._names = tuple(signature.parameters) if plain else ()
        self._needed = sum(p.default is p.empty for p in parameters) if plain else 1

    def bind(self, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments, by name wherever that is possible. Raises `ParameterError`."""
        if not kwargs and self._needed <= len(args) <= len(self._names):
            return (), dict(zip(self._names, args, strict=False))
        return bind(self._function, self._signature, args, kwargs)


def prepare(
    scope: Scope,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wait_for: Any,
) -> Prepared:
    """Return a call with references in the place of futures."""
    found = referred_call(scope, args, kwargs)
    sent_args, sent_kwargs = found.sent
    call = Call(function, sent_args, sent_kwargs, has_refs=found.has_refs)
    needs = found.upstreams if wait_for is None else (*found.upstreams, *waits(scope, wait_for))
    return Prepared(call, needs, known_by(found.sent))


def limit_of(given: Any) -> int | None:
    """Return how many task runs of a map may be under way at once. Raises `ParameterError`."""
    if given is None or (type(given) is int and given >= 1):
        return given
    raise ParameterError(f"max_in_flight= must be a whole number, 1 or more, not {given!r}.")


# Values -----------------------------------------------------------------------------------------------


class Referred(Struct, frozen=True):
    """Arguments as they are sent, whom they refer to, and whether anything in them stands for another."""

    sent: Any
    upstreams: tuple[Upstream, ...]
    has_refs: bool


def referred(scope: Scope, value: Any) -> Referred:
    """Return `value` with references in the place of futures, and whom they refer to.

    The future of another session (of another flow run) is waited for, and its value put in its place, as is
    that of a state. Raises what made those fail, unless they may.
    """
    search = _Search(scope)
    sent = search.of(value)
    return Referred(sent, search.upstreams(), search.has_refs)


def referred_call(scope: Scope, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Referred:
    """Return the arguments of a call with references in the place of futures, and whom they refer to."""
    return (None if args else _flat(scope, kwargs)) or referred(scope, (args, dict(kwargs)))


def _flat(scope: Scope, kwargs: Mapping[str, Any]) -> Referred | None:
    """Return the arguments of a call if there is nothing to search in them: numbers, texts, and futures.

    What stands for a value may be there already, in the place of a future that was never made.
    """
    found: dict[str, None] = {}
    sent = kwargs
    for name, value in kwargs.items():
        kind = type(value)
        if kind in ATOMS:
            continue
        if kind is Ref:
            found[value.task_run_id] = None
            continue
        if kind is not TaskFuture or not scope.owns(value.scope):
            return None
        if sent is kwargs:
            sent = dict(kwargs)
        sent[name] = Ref(value.task_run_id)  # type: ignore[index]  # it is the copy made above
        found[value.task_run_id] = None
    upstreams = tuple([Upstream(task_run_id) for task_run_id in found])
    return Referred(((), sent), upstreams, has_refs=bool(found))


def values_of(value: T) -> T:
    """Return `value` with the values of futures and states in their places, waiting for them."""
    found: T = _Search(None).of(value)
    return found


async def resolved(value: Any, *, native: bool) -> Any:
    """Return `value` with the values of futures and states in their places, once these are there."""
    await until_final(value, native=native)
    return values_of(value)


class _Search:
    """A search for futures, states and annotations in arguments.

    With a scope, what it owns is referred to, and what may not be searched again is wrapped; without one
    there are only values in the end.
    """

    def __init__(self, scope: Scope | None) -> None:
        self._scope = scope
        self._found: dict[str, Need] = {}
        self.has_refs = False

    def of(self, value: Any) -> Any:
        """Return a value with something in the place of all that was looked for. Raises `ParameterError`."""
        try:
            return swap(value, self._needed, (*LEAVES, Ref))
        except RecursionError:
            raise ParameterError(
                "An argument contains itself, or is nested too deep to look for futures in it. "
                "Pass it in pieces, or as quote(…) if there are no futures in it."
            ) from None

    def upstreams(self) -> tuple[Upstream, ...]:
        """Return what was referred to, in order."""
        return tuple(Upstream(task_run_id, need) for task_run_id, need in self._found.items())

    def _needed(self, leaf: Any) -> Any:
        if isinstance(leaf, Ref):  # in the place of a future that was never made
            return self._refer(leaf, Need.DATA)
        if isinstance(leaf, TaskFuture):
            return self._refer(leaf, Need.DATA) if self._owns(leaf) else leaf.result()
        if isinstance(leaf, State):
            return leaf.result()
        if isinstance(leaf, TaskFutureList):
            return [self._needed(future) for future in leaf]
        return self._annotated(leaf, self._needed)

    def _allowed(self, leaf: Any) -> Any:
        if isinstance(leaf, TaskFuture):
            if self._owns(leaf):
                return self._refer(leaf, Need.ALLOW)
            leaf.wait()
            return self._value_or_failure(leaf.state, leaf.name)
        if isinstance(leaf, State):
            return self._value_or_failure(leaf, "a task run")
        if isinstance(leaf, TaskFutureList):
            if (problem := leaf.problem()) is not None:
                return self._failure(problem, "a map")
            return [self._allowed(future) for future in leaf]
        return self._annotated(leaf, self._allowed)

    def _annotated(self, leaf: Annotation[Any], change: Callable[[Any], Any]) -> Any:
        value = leaf.value
        if isinstance(leaf, quote):
            while isinstance(value, Annotation):
                value = value.value
            return self._quoted(value)
        if isinstance(leaf, opaque) and not isinstance(value, LEAVES):
            return self._quoted(value)
        return swap(value, self._allowed if isinstance(leaf, allow_failure) else change, LEAVES)

    def _owns(self, future: TaskFuture[Any]) -> bool:
        return self._scope is not None and self._scope.owns(future.scope)

    def _refer(self, future: TaskFuture[Any] | Ref, need: Need) -> Ref:
        self.has_refs = True
        if self._found.get(future.task_run_id) is not Need.DATA:
            self._found[future.task_run_id] = need
        return Ref(future.task_run_id, may_fail=need is Need.ALLOW)

    def _quoted(self, value: Any) -> Any:
        if self._scope is None:
            return value
        self.has_refs = True
        return Quoted(value)

    def _value_or_failure(self, state: State, name: str) -> Any:
        try:
            found = state.result(raise_on_failure=False)
        except MissingResult as lost:
            return self._failure(lost, name)
        failed = isinstance(found, BaseException) and not state.is_completed()
        return self._failure(found, name) if failed else found

    def _failure(self, error: BaseException, name: str) -> Any:
        if self._scope is None:
            return error
        self.has_refs = True
        return Failure(name, live=error)


# wait_for ---------------------------------------------------------------------------------------------


async def until_final(value: Any, *, native: bool) -> None:
    """Wait until all futures in a value are final, however they end."""
    found: list[TaskFuture[Any]] = []

    def note(leaf: Any) -> None:
        if isinstance(leaf, TaskFuture):
            found.append(leaf)
        elif isinstance(leaf, TaskFutureList):
            found.extend([] if leaf.problem() is not None else leaf)
        elif isinstance(leaf, Annotation) and not isinstance(leaf, quote):
            swap([leaf.value], note, LEAVES)

    swap(value, note, LEAVES)
    for future in found:
        await future.until_final(native=native)


def await_all(wait_for: Any) -> None:
    """Wait for futures that must have completed. Raises what they raised."""
    for future, need in _awaited(wait_for):
        _wait(future, need)


def waits(scope: Scope, wait_for: Any) -> tuple[Upstream, ...]:
    """Return the upstreams that ``wait_for=`` names. Raises `ParameterError`, and what made a state fail."""
    if wait_for is None:
        return ()
    upstreams = []
    for future, need in _awaited(wait_for):
        if scope.owns(future.scope):
            upstreams.append(Upstream(future.task_run_id, need))
        else:
            _wait(future, need)
    return tuple(upstreams)


def _wait(future: TaskFuture[Any], need: Need) -> None:
    future.wait()
    if need is not Need.ALLOW and not future.state.is_completed():
        future.result()


def _awaited(wait_for: Any) -> list[tuple[TaskFuture[Any], Need]]:
    """Return the futures that ``wait_for=`` names, and what is needed of each. Raises `ParameterError`."""
    found: list[tuple[TaskFuture[Any], Need]] = []
    other: list[Any] = []

    def noting(need: Need) -> Callable[[Any], None]:
        def note(leaf: Any) -> None:
            if isinstance(leaf, TaskFuture):
                found.append((leaf, need))
                return
            other.append(leaf)
            if isinstance(leaf, State):
                if need is not Need.ALLOW and not leaf.is_completed():
                    leaf.result()
            elif isinstance(leaf, TaskFutureList):
                if need is not Need.ALLOW or leaf.problem() is None:
                    found.extend((future, need) for future in leaf)
            elif isinstance(leaf, Annotation):
                inner = Need.ALLOW if isinstance(leaf, allow_failure) else need
                swap([leaf.value], noting(inner), LEAVES)

        return note

    swap([wait_for], noting(Need.WAIT), LEAVES)
    if wait_for and not found and not other:
        raise ParameterError(f"wait_for= takes futures from .submit() or .map(), not {wait_for!r}.")
    return found
