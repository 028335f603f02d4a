"""A runner whose bodies speak with their driver as on a worker far away: in pickles, through the Link."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from dflow.attempts import body
from dflow.attempts.calls import Call
from dflow.attempts.inputs import value_of
from dflow.attempts.link import Ended, Mailbox, Sender, WorkerLink, open_batch
from dflow.attempts.packing import Packer, unpack
from dflow.core.events import AttemptSucceeded
from dflow.errors import MissingResult
from dflow.messages import AtRunner, Down, Key, Work
from dflow.ports import Host


def everywhere(_: ModuleType) -> bool:
    """Say that any module can be imported over there."""
    return True


class FarRunner:
    """Each body has a thread of its own, and nothing of the driver but its link.

    Without `pickles` calls stay as they are, so that a test may share objects with a body.
    """

    shares_memory = False
    follows = False
    runs_here = False

    def __init__(self, *, pickles: bool = True) -> None:
        self._pickles = pickles
        self._values: dict[Key, Any] = {}
        self._mailboxes: dict[Key, Mailbox] = {}
        self._packer = Packer(everywhere, script_there=False)
        self.threads: list[threading.Thread] = []
        self.released: list[Key] = []

    def open(self, host: Host) -> FarRunner:
        """Start to work."""
        self._host = host
        self._sender = Sender(self._carry)
        return self

    def _carry(self, _: int, data: bytes) -> None:
        letters = [message for _, message in open_batch(data)]
        self._host.news([message for message in letters if not isinstance(message, Ended)])

    def pack(self, call: Any) -> Any:
        """Return a call as bytes."""
        return self._packer.pack(call) if self._pickles else call

    def dispatch(self, works: Sequence[Work]) -> None:
        """Run bodies."""
        for work in works:
            self._mailboxes[work.info.key] = Mailbox()
            self.threads.append(threading.Thread(target=self._run, args=(work,), daemon=True))
            self.threads[-1].start()

    def _run(self, work: Work) -> None:
        key = work.info.key
        box = self._mailboxes[key]
        link = WorkerLink(key, self._sender, lambda: box, self.fetch, self.pack)
        outcome, value = body.run(
            work.info, lambda: (self._call(work), self._inputs(work, link)), link, must_travel=True
        )
        if isinstance(outcome, AttemptSucceeded):
            self._values[key] = value
        link.finish(outcome)
        link.send(outcome)

    def _call(self, work: Work) -> Call:
        call: Call = unpack(work.call) if self._pickles else work.call
        return call

    def _inputs(self, work: Work, link: WorkerLink) -> dict[str, Any]:
        return {
            name: self.fetch(given.key) if isinstance(given, AtRunner) else value_of(given, link)
            for name, given in work.inputs.items()
        }

    def withdraw(self, keys: Sequence[Key]) -> None:
        """Nothing waits here."""

    def stop(self, keys: Sequence[Key]) -> None:
        """Nobody can be stopped."""

    def release(self, keys: Sequence[Key]) -> None:
        """Let go of values."""
        for key in keys:
            self._values.pop(key, None)
        self.released.extend(keys)

    def fetch(self, key: Key) -> Any:
        """Return a value."""
        if key not in self._values:
            raise MissingResult(f"{key} has no value.")
        return self._values[key]

    def tell(self, key: Key, message: Down) -> None:
        """Send a message down."""
        self._mailboxes[key].put(message)

    def apply(self, function: Callable[[Any], Any], key: Key) -> Any:
        """Return what a function makes of a value."""
        return function(self.fetch(key))

    def fetch_each(self, keys: Sequence[Key]) -> Mapping[Key, Any]:
        """Return the values that are there."""
        return {key: self._values[key] for key in keys if key in self._values}

    def each_host(self, function: Callable[..., Any], *args: Any) -> Mapping[str, Any]:
        """Call a function where bodies run, which is here."""
        return {"far": function(*args)}

    def close(self) -> None:
        """Let go of everything; those who wait are told."""
        for mailbox in self._mailboxes.values():
            mailbox.close()
        self._sender.close()

    def shutdown(self) -> None:
        """Nothing is shared."""

    def describe(self) -> Mapping[str, Any]:
        """Return its kind."""
        return {"kind": "far"}
