"""The identity of task runs: named by what they are, not by luck.

A task run is (parent run, task, what its inputs are, k-th call with these). So a flow that is run again
finds its finished work again, in whatever order it asks for it. A task goes by its name, by where its
function is defined and, if that was made inside another one, by the data that it closes over. Inputs are
known by their fingerprint, or where they have none by their content. With an argument that has no content to
be told either (a lock, a connection) the position of the call counts beside the other arguments: it is found
again only while all that was asked for, and all values that were given, before it were the same, in the same
order. With a generator it is never found again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from dflow.results.fingerprints import NoFingerprint, content, fingerprint
from dflow.results.source import origin

SIZE = 16
"""Bytes of an identity."""
RULE = 1
"""The rule by which task runs are named; each run records its own. A change here is a new number."""


class Known:
    """What is known of inputs, as bytes; whether that is the `whole` of them, and whether they may recur.

    An iterator of which nothing is known may give something else the next time, wherever it stands.
    """

    __slots__ = ("content", "lasting", "whole")

    def __init__(self, content: bytes, *, whole: bool = True, lasting: bool = True) -> None:
        self.content = content
        self.whole = whole
        self.lasting = lasting

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "It stands for something of which not all is known."
        )  # it has no content itself


def known_by(inputs: Any) -> Known:
    """Return what is known of inputs. Where a part of a container has no content, the others count."""
    if isinstance(inputs, Known):
        return inputs
    try:
        return Known(fingerprint(inputs))
    except NoFingerprint:
        pass
    try:
        return Known(b"content" + content(inputs, files=False))
    except NoFingerprint:
        return _known_in_parts(inputs)


def _known_in_parts(inputs: Any) -> Known:
    if type(inputs) is dict:
        parts = [part for item in inputs.items() for part in item]
    elif type(inputs) in (list, tuple):
        parts = list(inputs)
    else:
        return Known(b"unknown", whole=False, lasting=not isinstance(inputs, Iterator))
    known = [known_by(part) for part in parts]
    return Known(
        _digest(type(inputs).__name__.encode(), *(part.content for part in known)),
        whole=False,
        lasting=all(part.lasting for part in known),
    )


_closed_over: WeakKeyDictionary[FunctionType, bytes] = WeakKeyDictionary()


def known_as(function: Any, *, named: bool = False) -> bytes:
    """Return what tells a function from others of its name: where it is defined, and the data it closes over.

    Where that is plays no part if its user has `named` it. The data is looked at once, before the first call:
    what the function does to it plays no part, nor does its code.
    """
    if isinstance(function, partial):
        arguments = known_by((function.args, function.keywords))
        return _digest(known_as(function.func, named=named), arguments.content)
    if not isinstance(function, FunctionType):
        return _digest(type(function).__qualname__.encode(), known_by(function).content)
    where = b"" if named else origin(function).encode("utf-8", "surrogatepass")
    inside = _closed_over.get(function)
    if inside is None:
        _closed_over[function] = b""  # it may hold itself
        inside = _digest(*(_cell_known(cell) for cell in function.__closure__ or ()))
        _closed_over[function] = inside
    return _digest(where, inside)


def _cell_known(cell: Any) -> bytes:
    """Return what is known of what a function closes over; nothing, where that is no plain data."""
    try:
        value = cell.cell_contents
    except ValueError:  # it has no value yet
        return b""
    value = getattr(value, "function", value)  # that of a task or a flow
    if isinstance(value, FunctionType | partial):
        return known_as(value)
    try:
        return fingerprint(value)
    except NoFingerprint:
        return b""


class Children:
    """Names the task runs and subflows that one `execution` of the body of `parent_id` asks for."""

    def __init__(self, parent_id: str, execution: str = "") -> None:
        self._parent_id = parent_id
        self._execution = execution
        self._calls: Counter[bytes] = Counter()
        self._names: Counter[str] = Counter()
        self._position = blake2b(digest_size=SIZE)
        self._lock = threading.Lock()

    def identify(
        self, task_name: str, inputs: Any, known_as: bytes = b"", *, apart: bool = False
    ) -> tuple[str, str]:
        """Return the id and the name of the next call of a task with `inputs`.

        It goes by `task_name` and, beside that, by what it is `known_as`.
        The id is 32 hexadecimal digits; the name is the task's with the number of its call, from 0. What is
        asked for `apart`, at a time that luck decides, does not move the position of other calls.
        """
        known = known_by(inputs)
        with self._lock:
            content = known.content
            if not known.whole:
                content += b"position" + self._position.digest()
            if not known.lasting:
                content += b"execution" + self._execution.encode()
            name = task_name.encode("utf-8", "surrogatepass")
            what = _digest(self._parent_id.encode(), name, known_as, content)
            repeat = self._calls[what]
            self._calls[what] += 1
            made = _digest(what, b"%d" % repeat)
            if not apart:
                self._position.update(made)
            number = self._names[task_name]
            self._names[task_name] += 1
        return made.hex(), f"{task_name}-{number}"

    def saw(self, task_run_id: str) -> None:
        """Note that the body has been given the value of a task run: what follows may depend on it."""
        with self._lock:
            self._position.update(b"saw" + task_run_id.encode())


def _digest(*parts: bytes) -> bytes:
    whole = blake2b(digest_size=SIZE)
    for part in parts:
        whole.update(b"%d:" % len(part))
        whole.update(part)
    return whole.digest()
