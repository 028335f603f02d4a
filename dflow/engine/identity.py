"""The identity of task runs: named by what they are, not by luck.

A task run is (parent run, task name, what its inputs are, k-th call with these). So a flow that is run again
finds its finished work again, in whatever order it asks for it. Inputs are known by their fingerprint, or
where they have none by their content. What has no content to be told either (locks, generators) falls back to
the position of the call: it is found again only while all that was asked for, and all values that were
given, before it were the same, in the same order.
"""

from __future__ import annotations

import threading
from collections import Counter
from hashlib import blake2b
from typing import Any

from dflow.results.fingerprints import NoFingerprint, content, fingerprint

SIZE = 16
"""Bytes of an identity."""


def known_by(inputs: Any) -> bytes | None:
    """Return what tells inputs from others in every process, or None if there is nothing."""
    try:
        return fingerprint(inputs)
    except NoFingerprint:
        pass
    try:
        return b"content" + content(inputs, files=False)
    except NoFingerprint:
        return None


class Children:
    """Names the task runs and subflows that one execution of a body asks for."""

    def __init__(self, parent_id: str) -> None:
        self._parent_id = parent_id
        self._calls: Counter[bytes] = Counter()
        self._names: Counter[str] = Counter()
        self._position = blake2b(digest_size=SIZE)
        self._lock = threading.Lock()

    def identify(self, task_name: str, inputs: Any, *, apart: bool = False) -> tuple[str, str]:
        """Return the id and the name of the next call of `task_name` with `inputs`.

        The id is 32 hexadecimal digits; the name is the task's with the number of its call, from 0. What is
        asked for `apart`, at a time that luck decides, does not move the position of other calls.
        """
        known = known_by(inputs)
        with self._lock:
            if known is None:
                known = b"position" + self._position.digest()
            name = task_name.encode("utf-8", "surrogatepass")
            what = _digest(self._parent_id.encode(), name, known)
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
