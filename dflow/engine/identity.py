"""The identity of task runs: named by what they are, not by luck.

A task run is (parent run, task name, fingerprint of its inputs, k-th call with that fingerprint). So a flow
that is run again finds its finished work again, in whatever order it asks for it. Inputs without a
fingerprint fall back to the position of the call: it is found again only while the calls before it were
the same, in the same order.
"""

from __future__ import annotations

import threading
from collections import Counter
from hashlib import blake2b
from typing import Any

from dflow.results.fingerprints import NoFingerprint, fingerprint


class Children:
    """Names the task runs and subflows that one execution of a body asks for."""

    def __init__(self, parent_id: str) -> None:
        self._parent_id = parent_id
        self._calls: Counter[bytes] = Counter()
        self._names: Counter[str] = Counter()
        self._order = b""
        self._lock = threading.Lock()

    def identify(self, task_name: str, inputs: Any, *, apart: bool = False) -> tuple[str, str]:
        """Return the id and the name of the next call of `task_name` with `inputs`.

        The id is 32 hexadecimal digits; the name is the task's with the number of its call, from 0. What is
        asked for `apart`, at a time that luck decides, does not move the position of other calls.
        """
        try:
            content = fingerprint(inputs)
        except NoFingerprint:
            content = None
        with self._lock:
            if content is None:
                content = b"position" + self._order
            name = task_name.encode("utf-8", "surrogatepass")
            what = _digest(self._parent_id.encode(), name, content)
            repeat = self._calls[what]
            self._calls[what] += 1
            made = _digest(what, b"%d" % repeat)
            if not apart:
                self._order = _digest(self._order, made)
            number = self._names[task_name]
            self._names[task_name] += 1
        return made.hex(), f"{task_name}-{number}"


def _digest(*parts: bytes) -> bytes:
    whole = blake2b(digest_size=16)
    for part in parts:
        whole.update(b"%d:" % len(part))
        whole.update(part)
    return whole.digest()
