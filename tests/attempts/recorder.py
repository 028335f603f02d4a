"""A link that keeps what is sent through it, and the attempt that it belongs to."""

from __future__ import annotations

from typing import Any

from dflow.core.events import AttemptStarted
from dflow.messages import AttemptInfo, Down, Key, LogEntry, Printed, SharedInfo, Up

TASK_RUN = "t1"


def info(**changes: Any) -> AttemptInfo:
    """Return what an attempt knows of itself."""
    known: dict[str, Any] = {
        "task_run_id": TASK_RUN,
        "dispatch": 3,
        "generation": 1,
        "attempt": 2,
        "task_name": "prepare",
        "task_run_name": "prepare-0",
        "flow_run_id": "f1",
        "flow_run_name": "brave-owl",
        "flow_name": "train",
        "root_id": "f1",
    }
    return attempt_info(**known | changes)


def attempt_info(**known: Any) -> AttemptInfo:
    """Return what an attempt knows of itself, of which some is shared with others."""
    names = set(SharedInfo.__struct_fields__)
    shared = SharedInfo(**{name: known.pop(name) for name in names & known.keys()})
    return AttemptInfo(**known, shared=shared)


class Recorder:
    """A link to nobody: it keeps what is sent, in order, and confirms a start once it was sent."""

    def __init__(self, *, far: bool = False) -> None:
        self.far = far
        self.sent: list[Up] = []
        self.witnessed: list[BaseException] = []
        self.confirmed_after: list[Up] = []
        self.gone: Exception | None = None

    @property
    def address(self) -> Key:
        """The dispatch."""
        return TASK_RUN, 3

    @property
    def lines(self) -> list[str]:
        """The log lines that were sent."""
        return [message.message for message in self.sent if isinstance(message, LogEntry)]

    @property
    def printed(self) -> list[str]:
        """The printed lines that were sent."""
        return [message.text for message in self.sent if isinstance(message, Printed)]

    @property
    def starts(self) -> list[AttemptStarted]:
        """The starts that were sent."""
        return [message for message in self.sent if isinstance(message, AttemptStarted)]

    def send(self, message: Up) -> None:
        """Keep a message."""
        self.sent.append(message)

    def confirm_start(self) -> None:
        """Note what had been sent when the confirmation was asked for."""
        if self.gone is not None:
            raise self.gone
        self.confirmed_after = list(self.sent)

    def receive(self, timeout: float | None = None) -> Down | None:  # noqa: ARG002  (of the port)
        """Return that nothing comes."""
        return None

    @property
    def ended(self) -> bool:
        """Nothing comes down."""
        return True

    def fetch(self, key: Key) -> Any:
        """Return nothing."""
        raise KeyError(key)

    def pack(self, call: Any) -> Any:
        """Return the call."""
        return call

    def witness(self, error: BaseException) -> None:
        """Keep an exception."""
        self.witnessed.append(error)
