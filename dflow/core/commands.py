"""What is to be done now, in the imperative. `step` returns these; the shell commits, then acts on them."""

from __future__ import annotations

from dflow.core.plain import Plain


class Command(Plain, frozen=True):
    """Something to do for one run."""

    run_id: str


class Consider(Command, frozen=True):
    """Ask the graph whether the task run may go."""


class Dispatch(Command, frozen=True):
    """Hand the task run to its runner. With `confirm_start` the body waits until its start is known."""

    dispatch: int
    generation: int
    attempt: int
    confirm_start: bool = False


class Withdraw(Command, frozen=True):
    """Take back a dispatch whose body has not started, as far as is known."""

    dispatch: int


class Stop(Command, frozen=True):
    """Ask a running body to stop."""

    dispatch: int


class SetTimer(Command, frozen=True):
    """Wait until `due` (seconds since 1970), then report that the retry is due."""

    due: float
    generation: int
    attempt: int


class SetDeadline(Command, frozen=True):
    """Count the attempt as timed out when it has not ended in `seconds` from now."""

    dispatch: int
    seconds: float


class Settle(Command, frozen=True):
    """The run is final: show its outcome, and tell those that wait for it."""


class RunBody(Command, frozen=True):
    """Run the body of the flow (again)."""

    generation: int
