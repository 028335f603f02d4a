"""Pickles that can be read again: in a worker, in the driver, and by a later process that resumes a run.

cloudpickle sends what lives in ``__main__`` by value, and its class is then another one in every process.
A script, however, is loaded again under the name ``__mp_main__`` by the worker processes that we start and
by ``dflow resume``, as multiprocessing does it; there its functions and classes can travel by reference,
and are the same ones.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, ModuleType, TracebackType
from typing import Any, Final

import cloudpickle

from dflow.messages import Ref

MAIN_NAMES: Final = ("__main__", "__mp_main__")
FEW: Final = 20
"""How many values a container has at most that is looked through before it is pickled."""
_SHORT: Final = frozenset({int, float, bool, type(None), Ref})
_KEYS: Final = _SHORT | {str}
_HOLDING: Final = frozenset({dict, list, tuple})
_LONG: Final = 65_536
"""From how many characters or bytes on a text is no plain value: pickle itself would copy it twice."""


class TooLarge(Exception):
    """A pickle grew beyond the size that was allowed."""


def script() -> ModuleType | None:
    """Return the module that was run as a script or by ``-m``, or None in a notebook or at a prompt."""
    module = sys.modules.get("__main__")
    if module is not None and (getattr(module, "__file__", None) or "").endswith(".py"):
        return module
    return None


def main_attribute(qualname: str) -> Any:
    """Return what is called `qualname` in the script that this process runs, or has loaded to run it."""
    for name in MAIN_NAMES:
        target: Any = sys.modules.get(name)
        for part in qualname.split("."):
            target = getattr(target, part, None)
        if target is not None:
            return target
    raise pickle.UnpicklingError(
        f"'{qualname}' is not in the script that is running here. "
        "Read this result with the script that made it, for example by 'dflow resume'."
    )


def lives_in_script(value: Any) -> bool:
    """Tell whether a function or class is an attribute of the script, so that `main_attribute` finds it."""
    if getattr(value, "__module__", None) not in MAIN_NAMES or script() is None:
        return False
    target: Any = script()
    for part in getattr(value, "__qualname__", "?").split("."):
        target = getattr(target, part, None)
    return target is value


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's pickler, that can take functions with ``lru_cache`` by value too; their caches stay."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _Cached) and not _is_found(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        return super().reducer_override(obj)


_Cached = type(lru_cache(len))


def _is_found(value: Any) -> bool:
    """Tell whether something is found by its name in a module that others can import."""
    by_value = {*MAIN_NAMES, *cloudpickle.list_registry_pickle_by_value()}
    name = value.__module__
    if any(name == each or name.startswith(f"{each}.") for each in by_value):
        return False
    target: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        target = getattr(target, part, None)
    return target is value


def _cached(function: Any, parameters: dict[str, Any]) -> Any:
    return lru_cache(**parameters)(function)


class _Pickler(_ByValue):
    """The same, with the script's functions and classes by reference."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | FunctionType | _Cached) and lives_in_script(obj):
            return main_attribute, (obj.__qualname__,)
        return super().reducer_override(obj)


class _WithoutTracebacks(_Pickler):
    """The same; tracebacks, which Dask makes pickles of errors take along, come back as None."""

    def reducer_override(self, obj: Any) -> Any:
        return (_nothing, ()) if isinstance(obj, TracebackType) else super().reducer_override(obj)


def _nothing() -> None:
    return None


class _Bounded(io.BytesIO):
    """A buffer that refuses to grow beyond a size."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.left = limit

    def write(self, data: Any) -> int:
        self.left -= memoryview(data).nbytes
        if self.left < 0:
            raise TooLarge
        return super().write(data)

    def admits(self, buffer: pickle.PickleBuffer) -> bool:
        """Refuse a large array before it is copied; a small one goes into the pickle."""
        if buffer.raw().nbytes > self.left:
            raise TooLarge
        return True


def _is_plain(value: Any, levels: int = 4) -> bool:
    """Tell whether a value is a number or text or holds a few: pickle itself is quickest with these."""
    kind = type(value)
    if kind in _SHORT:
        return True
    if kind is str or kind is bytes:
        return len(value) < _LONG
    if kind not in _HOLDING or len(value) > FEW or not levels:
        return False
    if kind is dict:
        if not _KEYS.issuperset(map(type, value)):
            return False
        value = value.values()
    if _SHORT.issuperset(map(type, value)):
        return True
    for each in value:  # noqa: SIM110  (a generator takes as long again)
        if not _is_plain(each, levels - 1):
            return False
    return True


def dumps(value: Any, *, script_by_reference: bool = True) -> bytes:
    """Return `value` pickled. With ``script_by_reference=False`` any process can read it."""
    if _is_plain(value):
        return pickle.dumps(value, protocol=5)
    if not script_by_reference:
        return dumps_by_value(value)
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def dumps_by_value(value: Any) -> bytes:
    """Return `value` pickled so that any process can read it."""
    buffer = io.BytesIO()
    _ByValue(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def dumps_small(value: Any, limit: int) -> bytes | None:
    """Return `value` pickled if that takes at most `limit` bytes, else None, without pickling it all."""
    if isinstance(value, str | bytes) and len(value) > limit:
        return None
    if _is_plain(value, 0):
        data = pickle.dumps(value, protocol=5)
        return data if len(data) <= limit else None
    return _bounded(value, limit, _Pickler)


def dumps_error(error: BaseException, limit: int) -> bytes | None:
    """Do the same with an exception, and let tracebacks, where it holds any, come back as None."""
    return _bounded(error, limit, _own_way if _is_simple(error) else _WithoutTracebacks)


def _own_way(buffer: io.BytesIO, **how: Any) -> pickle.Pickler:
    """Return pickle's own pickler, without what Dask registers for errors: that takes tracebacks along."""
    pickler = pickle.Pickler(buffer, **how)
    pickler.dispatch_table = {}
    return pickler


def _bounded(value: Any, limit: int, pickler: Callable[..., Any]) -> bytes | None:
    buffer = _Bounded(limit)
    try:
        pickler(buffer, protocol=5, buffer_callback=buffer.admits).dump(value)
    except TooLarge:
        return None
    return buffer.getvalue()


def _is_simple(error: BaseException) -> bool:
    """Tell whether pickle itself knows what to do: thousands of attempts may fail in the same way.

    That is so if nobody but Dask has said how to pickle it, and if plain arguments are all that it has.
    """
    kind = type(error)
    registered = copyreg.dispatch_table.get(kind)
    usual = (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is BaseException.__reduce__
        and isinstance(kind.__init__, _OfC)
        and isinstance(kind.__new__, BuiltinFunctionType)
        and (registered is None or registered.__module__.startswith("tblib."))
    )
    if not usual or len(error.__reduce__()) > 2:
        return False
    alone = error.__cause__ is None and error.__context__ is None
    return alone and _is_plain(error.args) and _is_found(kind)


_OfC = type(object.__init__)


def dumps_apart(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Return `value` pickled, and apart from it, not copied, the memory of the arrays in it."""
    buffer = io.BytesIO()
    apart: list[pickle.PickleBuffer] = []
    _Pickler(buffer, protocol=5, buffer_callback=apart.append).dump(value)
    return buffer.getvalue(), apart


def loads(data: bytes | memoryview, buffers: Iterable[Any] = ()) -> Any:
    """Return what was pickled; `buffers` are what was kept apart."""
    return pickle.loads(data, buffers=buffers)
