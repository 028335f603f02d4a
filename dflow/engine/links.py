"""The Link of an attempt that runs in the driver's own process: everything is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dflow.core.events import AttemptStarted
from dflow.messages import Down, Key, Up

if TYPE_CHECKING:
    from dflow.engine.session import Session


class LocalLink:
    """Posts straight to the session. Nothing has to come down: nested work uses the session itself.

    What a body that runs `in_place` says of its start is taken with what it says next.
    """

    far = False

    def __init__(
        self, session: Session, run_id: str, dispatch: int = 0, *, in_place: bool = False
    ) -> None:
        self.session = session
        self.address = (run_id, dispatch)
        self._in_place = in_place

    def send(self, message: Up) -> None:
        """Post a message."""
        if self._in_place and isinstance(message, AttemptStarted):
            self.session.tracker.post_soon(message)
        else:
            self.session.news([message])

    def confirm_start(self) -> None:
        """Wait until the driver has recorded the start."""
        self.session.tracker.commit()

    def receive(self, timeout: float | None = None) -> Down | None:  # noqa: ARG002  (of the port)
        """Return None: nothing comes down here."""
        return None

    @property
    def ended(self) -> bool:
        """Whether nothing will come down any more: nothing ever does."""
        return True

    def fetch(self, key: Key) -> Any:
        """Return the value of a child."""
        return self.session.value(key[0])

    def pack(self, call: Any) -> Any:
        """Return the call as it is."""
        return call

    def witness(self, error: BaseException) -> None:
        """Keep the exception itself, for those in this process who ask for it."""
        self.session.witness(self.address[0], error)
