"""What tasks and futures have of the engine, wherever their code runs.

In the driver's process it is a `DriverScope` that posts to the tracker; on a worker it is a remote scope
that speaks through the Link. Both are made for one execution of one body: its parent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dflow.attempts.calls import Call
from dflow.core.events import MapCreated, TaskCreated
from dflow.core.records import FlowRun, TaskRun
from dflow.messages import CallOptions
from dflow.states import FINAL_TYPES, TYPE_OF_NAME, StateType


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a run as it is shown."""

    state_name: str
    message: str = ""
    at: float | None = None

    @property
    def type(self) -> StateType:
        """The type of the state."""
        return TYPE_OF_NAME[self.state_name]

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self.type in FINAL_TYPES


PENDING = Status("Pending")


def status_of(run: TaskRun | FlowRun | None) -> Status:
    """Return the status of a record; a run that is not shown yet is pending."""
    return PENDING if run is None else Status(run.state_name, run.message, run.changed_at)


class Scope(Protocol):
    """Asks for task runs on behalf of one execution of a body, and tells what became of them."""

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""

    def identify(self, task_name: str, inputs: Any, *, apart: bool = False) -> tuple[str, str]:
        """Return the id and the name of the next call of a task with these inputs.

        What is asked for `apart`, at a time that luck decides, does not move the position of other calls.
        """

    @property
    def flow_run_id(self) -> str:
        """The flow run that task runs asked for here belong to."""

    @property
    def parent_id(self) -> str:
        """The run whose body asks."""

    def owns(self, other: Scope) -> bool:
        """Tell whether a future of `other` may be an upstream here."""

    def submit(
        self, event: TaskCreated | MapCreated, calls: Sequence[Call], options: CallOptions
    ) -> None:
        """Ask for task runs, one call each. Does not wait for them, unless the runner runs them here."""

    def call(self, event: TaskCreated, call: Call, options: CallOptions) -> Any:
        """Ask for one task run, run its body here, and return its value. Raises what it raised."""

    def status(self, task_run_id: str) -> Status:
        """Return the state that is shown of a task run."""

    def when_final(self, task_run_id: str, then: Callable[[], None]) -> None:
        """Call `then` once the task run is final: now, or later from another thread."""

    def value(self, task_run_id: str) -> Any:
        """Return the value of a completed task run. Raises what made it fail, or `MissingResult`."""

    def drop(self, task_run_id: str) -> None:
        """Note that a future is gone."""
