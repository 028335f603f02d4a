"""What is to be done now, in the imperative. `step` returns these; the shell commits, then acts on them."""

from __future__ import annotations

from dataclasses import dataclass

from dflow.core.making import swift


@swift
@dataclass(frozen=True, slots=True)
class Command:
    """Something to do for one run."""

    run_id: str


@swift
@dataclass(frozen=True, slots=True)
class Consider(Command):
    """Ask the graph whether the task run may go."""


@swift
@dataclass(frozen=True, slots=True)
class Dispatch(Command):
    """Hand the task run to its runner. With `confirm_start` the body waits until its start is known."""

    dispatch: int
    generation: int
    attempt: int
    confirm_start: bool = False


@swift
@dataclass(frozen=True, slots=True)
class Withdraw(Command):
    """Take back a dispatch whose body has not started, as far as is known."""

    dispatch: int


@swift
@dataclass(frozen=True, slots=True)
class Stop(Command):
    """Ask a running body to stop."""

    dispatch: int


@swift
@dataclass(frozen=True, slots=True)
class SetTimer(Command):
    """Wait until `due` (seconds since 1970), then report that the retry is due."""

    due: float
    generation: int
    attempt: int


@swift
@dataclass(frozen=True, slots=True)
class SetDeadline(Command):
    """Count the attempt as timed out when it has not ended in `seconds` from now."""

    dispatch: int
    seconds: float


@swift
@dataclass(frozen=True, slots=True)
class Settle(Command):
    """The run is final: show its outcome, and tell those that wait for it."""


@swift
@dataclass(frozen=True, slots=True)
class RunBody(Command):
    """Run the body of the flow (again)."""

    generation: int
