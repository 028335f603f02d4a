"""Maps: one task run for each item of lists, which may be lists that do not exist yet.

What is mapped over the future of a list is expanded once that is final: by a thread that begins then, in
the context of the call. Its task runs are named by the call of the map and by their inputs, never by when
that was.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, TypeVar

from dflow.attempts.calls import ATOMS, Call, swap
from dflow.attempts.context import current
from dflow.attempts.logs import get_run_logger
from dflow.core.records import Upstream
from dflow.engine.annotations import Annotation
from dflow.engine.calls import Prepared, Referred, called, referred, referred_call, waits
from dflow.engine.future_lists import Expansion, TaskFutureList
from dflow.engine.futures import TaskFuture
from dflow.engine.identity import Known, known_as, known_by, known_together
from dflow.engine.map_arguments import Argument, Items, Later, Same, argument_of
from dflow.engine.map_futures import MapFutures
from dflow.engine.scope import Scope
from dflow.engine.waiting import bell
from dflow.errors import CancelledError, InternalError, ParameterError
from dflow.messages import Ref

R = TypeVar("R")
Ask = Callable[[Iterator[list[Prepared]], tuple[Upstream, ...], bool], Sequence[TaskFuture[R]]]
"""Asks for the task runs of a map: the calls in parts, the upstreams of all, whether they are named apart."""
FIRST, PART = 250, 1000
"""How many calls of a long map are asked for first, and then at a time: what is asked for runs meanwhile."""

_log = logging.getLogger("dflow.engine")


@dataclass(frozen=True, slots=True)
class _Map(Generic[R]):
    """A map that was called, and how its task runs are asked for. `key` names one that is expanded later."""

    scope: Scope
    function: Callable[..., Any]
    args: tuple[Argument, ...]
    kwargs: Mapping[str, Argument]
    wait_for: Any
    ask: Ask[R]
    key: str = ""

    def arguments(self) -> dict[int | str, Argument]:
        """Return all arguments, by name or by position."""
        found: dict[int | str, Argument] = dict(enumerate(self.args))
        found.update(self.kwargs)
        return found

    def now(self) -> _Map[R]:
        """Return the map with lists in the place of their futures. Raises what made those fail."""
        args = tuple(_now(argument) for argument in self.args)
        return replace(self, args=args, kwargs={n: _now(a) for n, a in self.kwargs.items()})

    def kept(self) -> _Map[R]:
        """Return the map with its lists as they are now, whatever is done with them later."""
        args = tuple(_kept(argument) for argument in self.args)
        return replace(self, args=args, kwargs={n: _kept(a) for n, a in self.kwargs.items()})

    def problems(self) -> list[BaseException]:
        """Return the failures of what was to be a list, and was allowed to fail."""
        arguments = self.arguments().values()
        return [a.problem for a in arguments if isinstance(a, Same) and a.problem is not None]

    def made(self) -> Sequence[TaskFuture[R]]:
        """Ask for the task runs, one for each item."""
        count = self.length()
        same = {name: a.value for name, a in self.kwargs.items() if isinstance(a, Same)}
        shared = referred(self.scope, same)
        common = (*shared.upstreams, *waits(self.scope, self.wait_for))
        # Bodies of the first part may change the lists while the others are prepared.
        kept = self.kept() if count > PART else self
        prepared = kept._prepared(count, shared)
        in_parts = count > PART and kept._cannot_fail()
        parts = _parts(prepared, FIRST, PART) if in_parts else iter([list(prepared)])
        return self.ask(parts, common, bool(self.key))

    def _cannot_fail(self) -> bool:
        """Tell whether nothing can keep any item from being asked for, whatever runs meanwhile."""
        return all(self._is_harmless(argument) for argument in self.arguments().values())

    def _is_harmless(self, argument: Argument) -> bool:
        if isinstance(argument, Later) or (isinstance(argument, Items) and argument.may_fail):
            return False
        values = argument.items if isinstance(argument, Items) else (argument.value,)
        if isinstance(values, MapFutures):
            return self.scope.owns(values.scope)
        futures = (value for value in values if type(value) is TaskFuture)
        return set(map(type, values)) <= _HARMLESS and all(
            self.scope.owns(future.scope) for future in futures
        )

    def length(self) -> int:
        """Return how many items there are. Raises `ParameterError` if that is not to be told."""
        arguments = self.arguments()
        lengths = {n: len(a.items) for n, a in arguments.items() if isinstance(a, Items)}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"'{name}' has {length}" for name, length in lengths.items())
            raise ParameterError(
                f"'{called(self.function)}.map' got lists of different lengths: {shown}. "
                "Wrap what is the same for every item in unmapped(...)."
            )
        if lengths:
            return next(iter(lengths.values()))
        for problem in self.problems():
            raise problem
        raise ParameterError(
            f"'{called(self.function)}.map' got nothing to map over: give at least one argument "
            "that is a list or another iterable, or use .submit()."
        )

    def _prepared(self, count: int, shared: Referred) -> Iterator[Prepared]:
        """Yield a call for each item; `shared` are the arguments that all of them have."""
        shared_known = known_by(shared.sent) if shared.sent else None
        for index, (args, kwargs) in enumerate(self._rows(count)):
            own = referred_call(self.scope, args, kwargs)
            has_refs = own.has_refs or shared.has_refs
            sent_args, sent_kwargs = own.sent
            call = Call(self.function, sent_args, sent_kwargs, shared.sent, has_refs)
            known = known_by(own.sent)
            if shared_known is not None:
                known = known_together(shared_known, known)
            if self.key:
                known = self._known_here(known, index)
            yield Prepared(call, own.upstreams, known)

    def _rows(self, count: int) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Yield the arguments of each item that are not the same for all."""
        mapped = {name: a for name, a in self.kwargs.items() if isinstance(a, Items)}
        if self.args or any(a.may_fail for a in mapped.values()):
            for index in range(count):
                args = tuple(_at(argument, index) for argument in self.args)
                yield args, {name: argument.at(index) for name, argument in mapped.items()}
            return
        names = tuple(mapped)
        for row in zip(*(self._each(a.items) for a in mapped.values()), strict=True):
            yield (), dict(zip(names, row, strict=True))

    def _each(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return items as calls take them."""
        if isinstance(items, MapFutures) and self.scope.owns(items.scope):
            return items.refs()
        return items

    def _known_here(self, known: Known, index: int) -> Known:
        """Return what is known of an item in a map that has a name: it needs no other."""
        found = (self.key, known.content)
        return known_by(found if known.whole else (*found, index))


_HARMLESS = ATOMS | {TaskFuture}


def _parts(prepared: Iterator[Prepared], first: int, size: int) -> Iterator[list[Prepared]]:
    part = list(islice(prepared, first))
    while part:
        yield part
        part = list(islice(prepared, size))


def _now(argument: Argument) -> Argument:
    return argument.now() if isinstance(argument, Later) else argument


def _kept(argument: Argument) -> Argument:
    if not isinstance(argument, Items) or isinstance(argument.items, MapFutures):
        return argument
    return replace(argument, items=list(argument.items))


def _at(argument: Argument, index: int) -> Any:
    match argument:
        case Items():
            return argument.at(index)
        case Same():
            return argument.value
    raise InternalError("A map was made before all it goes over was there.")


def start(
    scope: Scope,
    function: Callable[..., Any],
    name: str,
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]],
    wait_for: Any,
    ask: Ask[R],
) -> TaskFutureList[R]:
    """Map `function`, the task `name`, over its arguments, now or once they are there.

    Raises `ParameterError` when nothing is mapped or the lengths differ; of what is still to come the list
    that is returned raises it.
    """
    args, kwargs = arguments
    here = _Map(
        scope,
        function,
        tuple(argument_of(value) for value in args),
        {key: argument_of(value) for key, value in kwargs.items()},
        wait_for,
        ask,
    )
    awaited = _awaited(here)
    if not awaited:
        return TaskFutureList(here.made())
    sources = [_known_by(scope, source) for source in awaited]
    key, _ = scope.identify(f"{name}.map", sources, known_as(function, named=True))
    expansion: Expansion[R] = Expansion(key)
    _Expanding(replace(here, key=key).kept(), expansion, awaited).begin()
    return TaskFutureList.of(expansion)


# Maps over what is still to come ----------------------------------------------------------------------

_Source = TaskFuture[Any] | TaskFutureList[Any]


def _awaited(here: _Map[Any]) -> list[_Source]:
    """Return what has to be final before a map can be expanded."""
    awaited: list[_Source] = []

    def note(found: TaskFutureList[Any]) -> None:
        if not found.expansion.over:
            awaited.append(found)

    for argument in here.arguments().values():
        if isinstance(argument, Later):
            awaited.append(argument.source)
        elif isinstance(argument, Same):
            inner = argument.value
            while isinstance(inner, Annotation):
                inner = inner.value
            if isinstance(inner, TaskFutureList):
                note(inner)
    if here.wait_for is not None:
        swap([here.wait_for], note, TaskFutureList)
    return awaited


def _known_by(scope: Scope, source: _Source) -> Any:
    """Return what names the source of a list in every pass; for one of another session nothing does."""
    if isinstance(source, TaskFutureList):
        return source.expansion.key
    return Ref(source.task_run_id) if scope.owns(source.scope) else None


class _Expanding(Generic[R]):
    """Expands one map when all that it waits for is final."""

    def __init__(self, called: _Map[R], expansion: Expansion[R], awaited: list[_Source]) -> None:
        self._called = called
        self._expansion = expansion
        self._awaited = awaited
        self._lock = threading.Lock()
        self._left = len(awaited)
        self._run = current()
        self._context = copy_context()

    def begin(self) -> None:
        """Expand the map now if that is possible, else as soon as it is."""
        if all(_is_final(source) for source in self._awaited):
            self._expand()
            return
        if self._run is not None:
            self._run.at_end.append(self._expansion_is_over)
        for source in self._awaited:
            if isinstance(source, TaskFutureList):
                source.expansion.when_over(self._one_less)
            else:
                source.scope.when_final(source.task_run_id, self._one_less)

    async def _expansion_is_over(self, failed: bool) -> None:
        """Wait for the expansion, for the body that asked for it; one that has failed needs it no more."""
        if self._run is None:
            return
        if failed:
            self._run.notes["raised"] = True
            return
        over = bell(native=self._run.notes.get("native", False))
        self._expansion.when_over(over.ring)
        await over.rung()

    def _one_less(self) -> None:
        """Note that something is final; called in threads that must not be held up."""
        with self._lock:
            self._left -= 1
            if self._left:
                return
        thread = threading.Thread(
            target=self._context.run, args=(self._expand,), name="dflow-map", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is about to end
            self._expansion.end([], error)

    def _expand(self) -> None:
        """Ask for the task runs, or note why there will be none."""
        try:
            self._ask()
        finally:
            self._need_not_wait()

    def _need_not_wait(self) -> None:
        """Let the body that asked for it end without a look at this: until then it would hold the futures."""
        if self._run is not None:
            with suppress(ValueError):  # the body does not wait for it, or has come to that already
                self._run.at_end.remove(self._expansion_is_over)

    def _ask(self) -> None:
        try:
            ready = self._ready()
        except Exception as error:  # a task run that failed tells of it itself
            self._expansion.end([], error)
            return
        try:
            futures = ready.made()
        except BaseException as error:
            self._expansion.end([], error)
            if not isinstance(error, Exception):
                raise
            if error not in ready.problems():
                self._say(error)
        else:
            self._expansion.end(futures)

    def _ready(self) -> _Map[R]:
        if self._run is not None and self._run.notes.get("raised"):
            raise CancelledError(
                "It was not mapped over any more: the body that asked for it has failed."
            )
        return self._called.now()

    def _say(self, error: Exception) -> None:
        """Tell of a failure that is nobody else's, and that perhaps nobody asks for."""
        if not isinstance(error, CancelledError):
            say = _log if self._run is None else get_run_logger()
            say.error("A map of '%s' could not be made: %s", called(self._called.function), error)


def _is_final(source: _Source) -> bool:
    return source.expansion.over if isinstance(source, TaskFutureList) else source.done()
