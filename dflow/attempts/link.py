"""The end of the Link that attempts on a worker have, whatever carries it.

What attempts say goes up in numbered batches, sent by a thread of its own: what a body said a moment before
its process was killed has left already. What their driver says comes down into inboxes. This module knows
no cluster framework: it is given a function that carries a batch away.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dflow.attempts import clock
from dflow.attempts.rows import Row
from dflow.core.events import AttemptStarted, Outcome
from dflow.errors import CancelledError, JournalUnavailable
from dflow.messages import (
    ChildrenCreated,
    Down,
    Key,
    LogEntry,
    Printed,
    StartConfirmed,
    Storing,
    Up,
)

FLUSH = 0.02
"""Seconds that a message waits at most for others to travel with it."""
IDLE = 30.0
"""Seconds after which a thread that has nothing to send ends."""
MAX_BATCH = 250_000
"""How many bytes a batch of several messages may take."""
MAX_LINES = 10_000
"""How many log lines of one attempt are sent, and how many lines that it printed."""
MAX_CHARS = 5_000_000
"""How many characters these may have together."""
BOUND = f"an attempt may write {MAX_LINES} of {MAX_CHARS} characters together"


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of dispatches that travel together, as `parcel`: rows of outcomes, all of one worker."""

    parcel: int
    worker: str
    rows: list[Row]


Letter = tuple[Key, Up | Ended]
"""A message, and the address of the link that it went into."""

_log = logging.getLogger("dflow.attempts")


def open_batch(data: bytes) -> list[Letter]:
    """Return the letters of a batch."""
    letters: list[Letter] = pickle.loads(data)
    return letters


class Sender:
    """Sends letters up, in order, in batches numbered from 1.

    `carry` is called with (number, batch), by one thread at a time. What is to go `at_once` does; outcomes
    and new task runs do when nothing has left just before; all else waits `FLUSH` seconds at most.
    """

    def __init__(self, carry: Callable[[int, bytes], None]) -> None:
        self._carry = carry
        self._changed = threading.Condition()
        self._letters: list[Letter] = []
        self._due = 0.0
        self._sent_at = 0.0
        self._number = 0
        self._taken_in = 0
        self._carried = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def send(
        self, address: Key, message: Up | Ended, *, urgent: bool = False, at_once: bool = False
    ) -> None:
        """Send a message that went into the link with this address. Does not block."""
        if sys.is_finalizing():
            return  # futures are collected at the end of the interpreter, when no thread can start
        with self._changed:
            due = 0.0 if at_once else clock.monotonic() + FLUSH
            if urgent:
                due = min(due, self._sent_at + FLUSH)
            self._due = min(self._due, due) if self._letters else due
            self._letters.append((address, message))
            self._taken_in += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dflow-sender", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> None:
        """Wait until all that was sent before has been carried away, `timeout` seconds at most."""
        with self._changed:
            until = self._taken_in
            self._due = clock.monotonic()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._carried >= until, timeout)

    def close(self) -> None:
        """Send what is left, and end the thread once that is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while letters := self._next():
            for data in _batches(letters):
                self._number += 1
                try:
                    self._carry(self._number, data)
                except Exception:
                    _log.exception("What attempts have reported could not be sent to their driver.")
            with self._changed:
                self._carried += len(letters)
                self._changed.notify_all()

    def _next(self) -> list[Letter]:
        """Wait until letters are due, and take them; none when it is time to end."""
        with self._changed:
            while not self._letters:
                if self._closed or not (self._changed.wait(IDLE) or self._letters):
                    self._thread = None
                    return []
            while not self._closed and (left := self._due - clock.monotonic()) > 0:
                self._changed.wait(left)
            letters, self._letters = self._letters, []
            self._sent_at = clock.monotonic()
            return letters


def _batches(letters: Sequence[Letter]) -> list[bytes]:
    """Return letters as batches that are not too large, leaving out what cannot be pickled."""
    try:
        data = pickle.dumps(letters, protocol=5)
    except Exception:
        if len(letters) == 1:
            _log.exception("A message of task run %s could not be sent.", letters[0][0][0])
            return []
    else:
        if len(data) <= MAX_BATCH or len(letters) == 1:
            return [data]
    half = len(letters) // 2
    return [*_batches(letters[:half]), *_batches(letters[half:])]


class Mailbox:
    """What has come down for one attempt and was not yet read."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[Down] = deque()
        self._confirmed = False
        self._closed = False

    def put(self, message: Down) -> None:
        """Add a message."""
        with self._changed:
            if isinstance(message, StartConfirmed):
                self._confirmed = True
            else:
                self._messages.append(message)
            self._changed.notify_all()

    def get(self, timeout: float | None) -> Down | None:
        """Take the oldest message, or return None after `timeout` seconds, and for good once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed, timeout)
            return self._messages.popleft() if self._messages else None

    @property
    def ended(self) -> bool:
        """Whether it is closed and all was read."""
        with self._changed:
            return self._closed and not self._messages

    def wait_for_confirmation(self) -> bool:
        """Wait until the start is confirmed; return False if it never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._confirmed or self._closed)
            return self._confirmed

    def close(self) -> None:
        """Let those who wait go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Allowance:
    """How much more one attempt may say."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines = 0
        self._chars = 0
        self.dropped = 0

    def admits(self, text: str) -> bool:
        """Tell whether a line may be sent, and count it."""
        with self._lock:
            if self._lines >= MAX_LINES or self._chars + len(text) > MAX_CHARS:
                self.dropped += 1
                return False
            self._lines += 1
            self._chars += len(text)
            return True


class WorkerLink:
    """The link of one attempt on a worker.

    The start of the attempt is not told before somebody asks for that (`begun`), or something is said that is
    more than lines: most attempts are over before. `open_box` makes the mailbox, once there is something that
    may be answered.
    """

    far = True

    def __init__(
        self,
        address: Key,
        sender: Sender,
        open_box: Callable[[], Mailbox],
        fetch: Callable[[Key], Any],
        pack: Callable[[Any], Any],
    ) -> None:
        self._address = address
        self._sender = sender
        self._open_box = open_box
        self._box: Mailbox | None = None
        self._fetch = fetch
        self._pack = pack
        self._pid = os.getpid()
        self._start: AttemptStarted | None = None
        self._told = False
        self._logs: Allowance | None = None
        self._prints: Allowance | None = None
        self._last_line: LogEntry | None = None

    @property
    def address(self) -> Key:
        """The dispatch to which messages come down this link."""
        return self._address

    @property
    def told(self) -> bool:
        """Whether the driver knows of the start, or will in a moment."""
        return self._told

    @property
    def has_box(self) -> bool:
        """Whether something could come down."""
        return self._box is not None

    def send(self, message: Up) -> None:
        """Send a message up. Lines beyond what one attempt may say are counted instead."""
        if os.getpid() != self._pid:
            raise JournalUnavailable(
                f"The attempt belongs to process {self._pid}, of which this one is a fork: "
                "its driver does not hear this one."
            )
        if isinstance(message, AttemptStarted):
            self._start = message
            return
        if isinstance(message, LogEntry | Printed):
            if self._admits(message):
                self._sender.send(self._address, message)
            return
        self.begun()
        self._mailbox()
        urgent = isinstance(message, Outcome | ChildrenCreated | Storing)
        self._sender.send(self._address, message, urgent=urgent)

    def begun(self) -> None:
        """Let the driver know of the start, unless it does."""
        start, self._start = self._start, None
        if start is not None:
            self._told = True
            self._sender.send(self._address, start)

    def _admits(self, line: LogEntry | Printed) -> bool:
        if isinstance(line, LogEntry):
            self._last_line = line
            self._logs = self._logs or Allowance()
            return self._logs.admits(line.message)
        self._prints = self._prints or Allowance()
        return self._prints.admits(line.text)

    def _mailbox(self) -> Mailbox:
        if self._box is None:
            self._box = self._open_box()
        return self._box

    def confirm_start(self) -> None:
        """Wait until the driver knows of the start. Raises `CancelledError` if it has gone away instead."""
        box = self._mailbox()
        self.begun()
        if not box.wait_for_confirmation():
            raise CancelledError("The driver ended the flow run before this attempt could begin.")

    def receive(self, timeout: float | None = None) -> Down | None:
        """Return the next message that came down, or None after `timeout` seconds or at the end."""
        return self._mailbox().get(timeout)

    @property
    def ended(self) -> bool:
        """Whether nothing will come down any more."""
        return self._mailbox().ended

    def fetch(self, key: Key) -> Any:
        """Return the value of a child that is held by the runner."""
        return self._fetch(key)

    def pack(self, call: Any) -> Any:
        """Return a child's call in the form that the driver's runner takes."""
        return self._pack(call)

    def witness(self, error: BaseException) -> None:
        """Do nothing: the driver is in another process."""

    def finish(self, outcome: Outcome) -> None:
        """Say how many lines were dropped, and end the link. The outcome itself goes another way."""
        self._say_dropped(outcome)
        if self._box is not None:
            self._box.close()

    def _say_dropped(self, outcome: Outcome) -> None:
        """Say how many lines were dropped."""
        last, logs, prints = self._last_line, self._logs, self._prints
        if logs is not None and logs.dropped and last is not None:
            text = f"{logs.dropped} more lines were dropped: {BOUND}."
            note = replace(last, at=outcome.at, level=logging.WARNING, message=text)
            self._sender.send(self._address, note)
        if prints is not None and prints.dropped:
            text = f"… {prints.dropped} more printed lines were dropped: {BOUND}."
            self._sender.send(self._address, Printed(text))
