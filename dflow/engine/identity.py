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
from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from dflow.core.id_set import IdSet
from dflow.results.fingerprints import NoFingerprint, content, fingerprint
from dflow.results.source import origin

SIZE = 16
"""Bytes of an identity."""
FEW = 8
"""Up to how many calls with the same inputs are counted by looking for each."""
RULE = 2
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


def known_together(one: Known, other: Known) -> Known:
    """Return what is known of two parts of the inputs of a call."""
    return Known(
        b"both" + _digest(one.content, other.content),
        whole=one.whole and other.whole,
        lasting=one.lasting and other.lasting,
    )


_closed_over: WeakKeyDictionary[FunctionType, bytes] = WeakKeyDictionary()
_looking = threading.RLock()  # other threads must not see what is not known yet


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
    with _looking:
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
        self._tasks: dict[tuple[str, bytes], Any] = {}
        self._ids = IdSet()
        self._repeats: dict[bytes, int] = {}
        self._names: dict[str, int] = {}
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
        return self.identify_all(task_name, (known_by(inputs),), known_as, apart=apart)[0]

    def identify_all(
        self, task_name: str, inputs: Iterable[Known], known_as: bytes = b"", *, apart: bool = False
    ) -> list[tuple[str, str]]:
        """Return the ids and the names of the next calls of a task, one for each of the `inputs`."""
        made = []
        with self._lock:
            task, number = self._task(task_name, known_as), self._names.get(task_name, 0)
            for known in inputs:
                call = task.copy()
                call.update(known.content)
                if not known.whole:
                    call.update(b"position" + self._position.digest())
                if not known.lasting:
                    call.update(b"execution" + self._execution.encode())
                what = call.digest()
                run_id = what.hex()
                if not self._ids.add(run_id):
                    what = self._repeated(what)
                    run_id = what.hex()
                if not apart:
                    self._position.update(what)
                made.append((run_id, f"{task_name}-{number}"))
                number += 1
            self._names[task_name] = number
        return made

    def _repeated(self, what: bytes) -> bytes:
        """Return the identity of one more call with the same inputs."""
        number = self._repeats.get(what, 1)
        while not self._ids.add((repeated := _digest(what, b"%d" % number)).hex()):
            number += 1
        if number > FEW:
            self._repeats[what] = number + 1
        return repeated

    def _task(self, task_name: str, known_as: bytes) -> Any:
        """Return the hash of all that the calls of a task have in common, to be copied for each."""
        task = self._tasks.get((task_name, known_as))
        if task is None:
            name = task_name.encode("utf-8", "surrogatepass")
            task = blake2b(_framed(self._parent_id.encode(), name, known_as), digest_size=SIZE)
            self._tasks[task_name, known_as] = task
        return task

    def saw(self, *task_run_ids: str) -> None:
        """Note that the body has been given the values of task runs: what follows may depend on them."""
        seen = b"".join(b"saw" + task_run_id.encode() for task_run_id in task_run_ids)
        with self._lock:
            self._position.update(seen)


def _framed(*parts: bytes) -> bytes:
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def _digest(*parts: bytes) -> bytes:
    return blake2b(_framed(*parts), digest_size=SIZE).digest()
