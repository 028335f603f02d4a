"""The code of functions, as it counts: what they do, not how it is written nor where.

What is hashed are the instructions that Python made of a function, with the names and constants that they
use. So comments, docstrings, layout, decorators and the place in a file play no part, what is not in a file
has a digest too, and it is always that of the code that runs, whatever has become of its file. Instructions
differ between minor versions of Python, which a digest therefore names.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from types import CodeType, EllipsisType, FunctionType, MethodType
from typing import Any, Final

from dflow.results.pickling import MAIN_NAMES

SIZE: Final = 16
"""Bytes of a digest."""
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}{'o' * sys.flags.optimize}"
"""What has compiled the code that runs here; with ``-O`` it leaves out what ``assert`` says."""

_KINDS = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
_LINE_OF_CLASS = "__firstlineno__"


def source_digest(function: Callable[..., Any]) -> str:
    """Return a text that stands for the code of a function, such as ``3.11-0f…``.

    Of a method, a partial or a wrapper made with ``functools.wraps`` the code of what is inside counts too,
    of an object that can be called, that of its ``__call__``. Default values count, as far as they are
    constants. What a function closes over is not in it. Two texts that begin with other versions of Python
    cannot be compared: see `has_changed`.

    >>> source_digest(lambda x: x + 1) == source_digest(lambda x: x + 1)
    True
    """
    digests = [_with_defaults(inner) for inner in _functions(function)]
    if len(digests) == 1:
        return f"{PYTHON}-{digests[0].hex()}"
    return f"{PYTHON}-{blake2b(b''.join(digests), digest_size=SIZE).hexdigest()}"


def has_changed(before: str, now: str) -> bool:
    """Tell whether two texts of `source_digest` are of different code; what is not known has not changed.

    >>> has_changed(source_digest(lambda x: x + 1), source_digest(lambda x: x + 2))
    True
    """
    comparable = bool(before and now) and before.partition("-")[0] == now.partition("-")[0]
    return comparable and before != now


def _with_defaults(function: FunctionType) -> bytes:
    digest = code_digest(function.__code__)
    if not (function.__defaults__ or function.__kwdefaults__):
        return digest
    given = (*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items()))
    return blake2b(digest + repr(_constant(given)).encode(), digest_size=SIZE).digest()


def _functions(function: Any) -> Iterable[FunctionType]:
    while function is not None:
        if isinstance(function, MethodType):
            function = function.__func__
        elif isinstance(function, partial):
            function = function.func
        elif isinstance(function, FunctionType):
            yield function
            function = getattr(function, "__wrapped__", None)
        else:
            inside = getattr(function, "__wrapped__", None)
            method = getattr(type(function), "__call__", None)  # noqa: B004  (its code is wanted)
            function = inside if inside is not None else method
            if not isinstance(function, FunctionType | MethodType | partial):
                return


def origin(function: FunctionType) -> str:
    """Return where a function comes from: ``module:qualname``, the same in every process and folder.

    A script goes by the name of its file, whether it is run or imported.
    """
    module = function.__module__ or ""
    if module in MAIN_NAMES:
        file = Path(function.__code__.co_filename)
        in_notebook = file.suffix != ".py" or "ipykernel" in file.parent.name
        module = "__main__" if in_notebook else file.stem
    return f"{module}:{function.__qualname__}"


@lru_cache(maxsize=4096)
def code_digest(code: CodeType) -> bytes:
    """Return the digest of compiled code."""
    whole = blake2b(digest_size=SIZE)
    arguments = code.co_argcount + code.co_kwonlyargcount
    arguments += bool(code.co_flags & inspect.CO_VARARGS)
    arguments += bool(code.co_flags & inspect.CO_VARKEYWORDS)
    head = (
        code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _KINDS,
        code.co_varnames[:arguments],
    )  # fmt: skip
    whole.update(repr(head).encode("utf-8", "surrogatepass"))
    for part in _instructions(code):
        whole.update(b"%d:" % len(part))
        whole.update(part)
    whole.update(code.co_exceptiontable)
    return whole.digest()


def _instructions(code: CodeType) -> Iterable[bytes]:
    found = [item for item in dis.get_instructions(code) if item.opname != "CACHE"]
    for index, item in enumerate(found):
        following = found[index + 1].argval if index + 1 < len(found) else None
        if item.opcode in dis.hasconst and following != _LINE_OF_CLASS:
            what: Any = _constant(item.argval)
        elif item.opcode in dis.hasconst:
            what = b"line"
        elif item.opcode in dis.hasname:
            what = item.argrepr
        elif isinstance(item.argval, str | tuple) or item.opcode in _JUMPS:
            what = item.argval
        else:
            what = item.arg
        yield f"{item.opname} {what!r}".encode("utf-8", "surrogatepass")


_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))


def _constant(value: Any) -> Any:
    """Return what stands for a constant, with a representation that is the same in every process."""
    if isinstance(value, CodeType):
        return code_digest(value)
    if isinstance(value, tuple):
        return ("tuple", *map(_constant, value))
    if isinstance(value, frozenset):
        return ("set", *sorted(map(repr, map(_constant, value))))
    if isinstance(value, slice):  # a constant since Python 3.14
        return "slice", *map(_constant, (value.start, value.stop, value.step))
    if isinstance(value, EllipsisType) or value is None:
        return repr(value)
    if isinstance(value, str | bytes | int | float | complex):
        return type(value).__name__, repr(value)
    return (type(value).__name__,)  # a default: where it is in memory says nothing
