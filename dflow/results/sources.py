"""What stands for the code of a function: equal for equal code, another one when the code has changed.

It is made from the compiled code that would run, not from the text of its file: that may have been edited
since it was loaded, and a lambda, a notebook or ``exec`` has no file of its own. Comments, docstrings,
decorators, annotations and line numbers play no part, nested functions do. What the code refers to (globals,
closures, other functions) is not looked into.

Compiled code differs between versions of Python, and with ``-O``: two digests of different compilers tell
nothing, so each begins with the name of its own.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import zip_longest
from types import CodeType, FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

SIZE = 8
"""Bytes of a digest, without the name of its compiler."""
COMPILER = f"{sys.implementation.cache_tag or sys.implementation.name}" + (
    f"-o{sys.flags.optimize}" if sys.flags.optimize else ""
)
"""What has compiled the code that runs here."""

KIND = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
"""The flags of compiled code that say what calling it does."""

LINE_OF_CLASS = "__firstlineno__"
"""Where Python from 3.13 on notes the line in which a class begins."""

_known: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def source_digest(function: Callable[..., Any]) -> str:
    """Return a short text that stands for the code of a function, or "" if it has none to look at.

    Of a function behind wrappers that name it (``functools.wraps``), of a partial and of a callable object
    all the code counts.
    """
    try:
        known = _known.get(function)
        if known is None:
            known = _known[function] = _made(function)
    except TypeError:  # it cannot be held weakly, or hashed
        return _made(function)
    return known


@lru_cache(maxsize=4096)
def code_digest(code: CodeType) -> bytes:
    """Return 16 bytes that stand for compiled code alone."""
    collected = blake2b(digest_size=16)
    _put_code(collected, code)
    return collected.digest()


def has_changed(before: str, now: str) -> bool:
    """Tell whether two digests are of different code; what is unknown has not changed."""
    return bool(before and now) and before != now and _compiler(before) == _compiler(now)


def _compiler(digest: str) -> str:
    return digest.rpartition(":")[0]


def _made(function: Any) -> str:
    collected = blake2b(digest_size=SIZE)
    found = False
    for part in _parts(function):
        found = True
        _put(collected, part.__code__)
        _put(collected, (part.__defaults__, part.__kwdefaults__))
    return f"{COMPILER}:{collected.hexdigest()}" if found else ""


def _parts(function: Any) -> Iterator[FunctionType]:
    """Yield the functions of which a callable is made: wrappers first, then what they wrap."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        if isinstance(function, FunctionType):
            yield function
            function = getattr(function, "__wrapped__", None)
        elif isinstance(function, MethodType | staticmethod | classmethod):
            function = function.__func__
        elif isinstance(function, partial):
            function = function.func
        else:
            inner = getattr(function, "__wrapped__", None)
            function = inner or inspect.getattr_static(type(function), "__call__", None)


def _put(to: Any, value: Any) -> None:
    """Feed a constant, or code, in a form that does not depend on the process."""
    if isinstance(value, CodeType):
        _put_code(to, value)
        return
    if isinstance(value, frozenset):  # its order is luck
        value = sorted(_apart(item) for item in value)
    to.update(f"{type(value).__name__}(".encode())
    if isinstance(value, tuple | list):
        for item in value:
            _put(to, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _put(to, (key, item))
    elif value is None or value is ... or isinstance(value, str | bytes | int | float | complex):
        to.update(repr(value).encode("utf-8", "backslashreplace"))
    else:  # a default that is no constant: what it is, not where in memory
        to.update(f"{type(value).__module__}.{type(value).__qualname__}".encode())
    to.update(b")")


def _apart(value: Any) -> str:
    inner = blake2b(digest_size=SIZE)
    _put(inner, value)
    return inner.hexdigest()


def _put_code(to: Any, code: CodeType) -> None:
    to.update(b"code(")
    parameters = code.co_argcount + code.co_kwonlyargcount
    _put(to, (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount))
    _put(to, code.co_flags & KIND)
    _put(to, code.co_varnames[:parameters])
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip_longest(instructions, instructions[1:]):
        # Constants by their values: where they stand depends on whether there is a docstring.
        to.update(f"{instruction.opname} ".encode())
        if following is None or following.argval != LINE_OF_CLASS:
            _put(to, instruction.argval)
    _put(to, code.co_exceptiontable)
    to.update(b")")
