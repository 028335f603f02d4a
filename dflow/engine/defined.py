"""What tasks and flows have in common: a function of some kind, its name, and binding to instances."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from types import AsyncGeneratorType, FunctionType, MethodType
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
)

from dflow.attempts.context import current
from dflow.attempts.kinds import Kind, kind_of
from dflow.attempts.stepping import async_generated, finished, generated, run_to_end
from dflow.engine import calls, definitions, homes
from dflow.engine.identity import known_as
from dflow.engine.options import FlowOptions, TaskOptions, changed
from dflow.results.pickling import MAIN_NAMES, main_attribute
from dflow.states import State

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")
Options = TypeVar("Options", TaskOptions, FlowOptions)

Items = Iterator[T] | AsyncIterator[T]
"""What a generator function gives when it is called."""


class Method(Protocol[S_contra, P, R_co]):
    """What type checkers see in a task or flow of a method: the first parameter takes the instance.

    They match `fn` with it, as they do not all look at the first parameter in ``Task[Concatenate[S, P], R]``.
    """

    @property
    def fn(self) -> Callable[Concatenate[S_contra, P], R_co]:
        """The plain function."""


class Untyped:
    """Nothing is this, but that which has no type: how type checkers tell functions without annotations."""


class Defined(ABC, Generic[P, R_co, Options]):
    """A function and how its runs are to be treated.

    `fn` is the plain function; of a method that was looked up on an instance, it is bound to that. `function`
    is what stands in the class, without the instance.
    """

    what = "task"
    dashes = False

    def __init__(self, fn: Callable[P, R_co], options: Options) -> None:
        self._given: Any = fn
        function: Any = fn.__func__ if isinstance(fn, staticmethod | classmethod) else fn
        definitions.check_function(function, self.what)
        definitions.check_texts(self.what, description=options.description, version=options.version)
        functools.update_wrapper(cast(Any, self), function)
        self.fn: Callable[P, R_co] = function
        self.function: Callable[..., Any] = function
        self.kind = kind_of(function)
        self.name = definitions.name_of(function, options.name, self.what, dashes=self.dashes)
        self.description = options.description or inspect.getdoc(function) or ""
        self.version = options.version
        self._options: Options = options
        self._signature = inspect.signature(function)
        self._binder = calls.Binder(function, self._signature)
        self._bound: tuple[Any, ...] = ()
        self._told_apart: bytes | None = None

    @property
    def _known_as(self) -> bytes:
        """What tells this from others of its name, in the identity of its runs."""
        if self._told_apart is None or not isinstance(self.function, FunctionType):
            self._told_apart = known_as(self.function, named=self._options.name is not None)
        return self._told_apart

    @property
    def isasync(self) -> bool:
        """Whether calling it gives something to await or to iterate over asynchronously."""
        return self.kind.native

    @property
    def isgenerator(self) -> bool:
        """Whether calling it gives its result item by item."""
        return self.kind.hands_out

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(
        self: Defined[..., Untyped, Any], /, *args: Any, return_state: Literal[True], **kwargs: Any
    ) -> Any: ...
    @overload
    def __call__(
        self: Defined[..., Coroutine[Any, Any, Any] | AsyncIterator[Any], Any],
        /,
        *args: Any,
        return_state: Literal[True],
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State]: ...
    @overload
    def __call__(self, /, *args: Any, return_state: Literal[True], **kwargs: Any) -> State: ...
    @overload
    def __call__(self, /, *args: Any, wait_for: Any, **kwargs: Any) -> R_co: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run it now, in this thread, and return its value or raise what it raises.

        An async function gives a coroutine, which runs on the caller's loop once it is awaited; a generator
        gives its items as they come. ``return_state=True`` returns the `State` instead, and does not raise;
        ``wait_for=[…]`` names futures that must have completed before. Raises `ParameterError` for arguments
        that do not fit.

        To type checkers these two go with any arguments. Futures are taken for arguments too, which the
        types of the parameters do not say: `Task.submit` takes them without complaint.
        """
        return self._call(args, kwargs)

    @abstractmethod
    def _call(self, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """Do what `__call__` says."""

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        """Return this with `self` (or the class) filled in, when it is looked up on an instance."""
        if isinstance(self._given, staticmethod):
            return self
        target = owner if isinstance(self._given, classmethod) else instance
        return self if target is None else self._bound_to(target)

    def _bound_to(self, target: Any) -> Self:
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound._bound = (target,)
        method: Any = MethodType(self.function, target)
        bound.fn = bound.__wrapped__ = method  # type: ignore[attr-defined]  # of functools.wraps
        return bound

    def with_options(self, **changes: Any) -> Self:
        """Return the same function with other options; what is not named stays as it is.

        None clears an option. Raises `DefinitionError` for an option that does not exist.
        """
        options = changed(self._options, changes, f"{self.what} '{self.name}'")
        made = type(self)(self._given, options)
        return made._bound_to(self._bound[0]) if self._bound else made

    def _arguments(self, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call, by name wherever possible. Raises `ParameterError`."""
        return self._binder.bind((*self._bound, *args), kwargs)

    def __dflow_content__(self) -> tuple[Any, ...]:
        """Return what counts of this in the key of a cache, where it is an argument or is closed over."""
        return self.what, self.name, self.function, self._bound

    def __repr__(self) -> str:
        return f"<{type(self).__name__} '{self.name}'>"

    def __reduce__(self) -> Any:
        """Travel by reference where the module has this function under its name, else by value.

        By value it comes home as itself: see `dflow.engine.homes`.
        """
        if self._bound:
            unbound = type(self)(self._given, self._options)
            return _bind, (unbound, self._bound[0])
        module, qualname = self.function.__module__, getattr(self.function, "__qualname__", "")
        found = _find(module, qualname)
        there = isinstance(found, type(self)) and found.function is self.function
        if there and module != "__main__":
            return _found, (module, qualname, None if found is self else self._options)
        return homes.come, (homes.token_of(self), type(self), self._given, self._options)


def _bind(unbound: Defined[..., Any, Any], target: Any) -> Defined[..., Any, Any]:
    return unbound._bound_to(target)


def _find(module: str, qualname: str) -> Any:
    target: Any = sys.modules.get(module)
    for part in qualname.split("."):
        target = getattr(target, part, None)
    return target


def _found(module: str, qualname: str, options: Any) -> Defined[..., Any, Any]:
    found: Defined[..., Any, Any]
    if module in MAIN_NAMES:
        found = main_attribute(qualname)
    else:
        importlib.import_module(module)
        found = _find(module, qualname)
    return found if options is None else type(found)(found._given, options)


def as_called(kind: Kind, steps: Any, *, whole: bool = False) -> Any:
    """Return what calling a function of some kind gives, from the coroutine that does the work.

    With `whole` a generator gives all at its end, too.
    """
    if kind is Kind.COROUTINE or (kind is Kind.ASYNC_GENERATOR and whole):
        return steps
    if kind is Kind.PLAIN or whole:
        return finished(steps)
    items = generated(steps) if kind is Kind.GENERATOR else async_generated(steps)
    _close_with_body(items)
    return items


def to_the_end(kind: Kind, called: Any) -> Any:
    """Return the value of what calling a function of some kind gave: awaited, or all items as a list."""
    if kind is Kind.COROUTINE:
        return run_to_end(lambda: called)
    if kind is Kind.GENERATOR:
        return list(called)
    return run_to_end(lambda: _all_of(called)) if kind is Kind.ASYNC_GENERATOR else called


async def _all_of(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def _close_with_body(items: Any) -> None:
    """Let a generator that was not run to its end be closed when the body that called it ends."""
    context = current()
    if context is None:
        return
    if "generators" not in context.notes:
        left = context.notes["generators"] = _Left()
        context.at_end.append(left.close)
    context.notes["generators"].add(items)


class _Left:
    """Generators that a body has called. A plain one that is let go of before is closed at once by that.

    An async one would be closed by its loop some time later, perhaps after the end of the run: it is held.
    """

    def __init__(self) -> None:
        self._plain: weakref.WeakSet[Generator[Any, Any, Any]] = weakref.WeakSet()
        self._held: list[AsyncGeneratorType[Any, Any]] = []

    def add(self, items: Any) -> None:
        """Note one more."""
        if isinstance(items, Generator):
            self._plain.add(items)
        else:
            self._held = [each for each in self._held if each.ag_frame is not None]
            self._held.append(items)

    async def close(self, _failed: bool) -> None:
        """Close those that were not run to their end."""
        for items in list(self._plain):
            items.close()
        for each in self._held:
            await each.aclose()
