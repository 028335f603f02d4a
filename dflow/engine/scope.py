"""What tasks and futures have of the engine, wherever their code runs.

In the driver's process it is a `DriverScope` that posts to the tracker; on a worker it is a remote scope
that speaks through the Link. Both are made for one execution of one body: its parent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dflow.attempts.calls import Call
from dflow.attempts.kinds import Kind
from dflow.core.events import MapCreated, TaskCreated
from dflow.core.records import FlowRun, Held, TaskRun
from dflow.engine.identity import Known
from dflow.messages import CallOptions
from dflow.states import FINAL_TYPES, TYPE_OF_NAME, StateType

FINAL_NAMES = frozenset(name for name, type_ in TYPE_OF_NAME.items() if type_ in FINAL_TYPES)
"""The names of the states that end a run."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a run as it is shown, and whether its outcome can be had without waiting for it."""

    state_name: str
    message: str = ""
    at: float | None = None
    at_hand: bool = False

    @property
    def type(self) -> StateType:
        """The type of the state."""
        return TYPE_OF_NAME[self.state_name]

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self.state_name in FINAL_NAMES


PENDING = Status("Pending")


@dataclass(frozen=True, slots=True)
class Called:
    """How a direct call ended: its value, and whether the body ran now rather than in an earlier run."""

    value: Any
    ran: bool


def status_of(run: TaskRun | FlowRun | None) -> Status:
    """Return the status of a record; a run that is not shown yet is pending."""
    if run is None:
        return PENDING
    at_hand = run.stage.final and (run.stage != "completed" or run.held is Held.JOURNAL)
    return Status(run.state_name, run.message, run.changed_at, at_hand)


class Scope(Protocol):
    """Asks for task runs on behalf of one execution of a body, and tells what became of them."""

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""

    def identify(
        self, task_name: str, inputs: Any, known_as: bytes = b"", *, apart: bool = False
    ) -> tuple[str, str]:
        """Return the id and the name of the next call of a task with these inputs.

        It goes by `task_name` and, beside that, by what it is `known_as`.
        What is asked for `apart`, at a time that luck decides, does not move the position of other calls.
        """

    def identify_all(
        self, task_name: str, inputs: Iterable[Known], known_as: bytes = b"", *, apart: bool = False
    ) -> list[tuple[str, str]]:
        """Return the ids and the names of the next calls of a task, one for each of the inputs."""

    @property
    def flow_run_id(self) -> str:
        """The flow run that task runs asked for here belong to."""

    @property
    def parent_id(self) -> str:
        """The run whose body asks."""

    @property
    def generation(self) -> int:
        """The generation of that flow run, or 0 where only the driver knows it."""

    def owns(self, other: Scope) -> bool:
        """Tell whether a future of `other` may be an upstream here."""

    def submit(
        self, event: TaskCreated | MapCreated, calls: Sequence[Call], options: CallOptions
    ) -> None:
        """Ask for task runs, one call each. Does not wait for them, unless the runner runs them here."""

    def keep_pace(self) -> bool:
        """Wait a while until what was asked for before the last call of this has been taken in.

        Who asks for a long map part by part is so kept from running ahead of what becomes of it. Return
        whether that goes on: if not, the rest of the map does without.
        """

    async def call(
        self, event: TaskCreated, call: Call, options: CallOptions, *, kind: Kind, whole: bool
    ) -> Called:
        """Ask for one task run, and run its body here. Raises what it raised.

        A call of an async `kind` is awaited on a loop; any other waits for nothing but threads. With `whole`
        a generator is collected instead of handed out.
        """

    def status(self, task_run_id: str) -> Status:
        """Return the state that is shown of a task run."""

    def when_final(self, task_run_id: str, then: Callable[[], None]) -> None:
        """Call `then` once the task run is final: now, or later from another thread."""

    def when_all_final(self, task_run_ids: Iterable[str], then: Callable[[], None]) -> None:
        """Call `then` once all these task runs are final: now, or later from another thread."""

    def unfinished(self, task_run_ids: Iterable[str]) -> list[str]:
        """Return those of these task runs that are not shown as final."""

    def value(self, task_run_id: str) -> Any:
        """Return the value of a completed task run. Raises what made it fail, or `MissingResult`."""

    def values(self, task_run_ids: Sequence[str]) -> list[Any]:
        """Return the values of final task runs, which the body is given. Raises the first failure."""

    def saw(self, *task_run_ids: str) -> None:
        """Note that the body is given the values of task runs: what it asks for next may depend on them."""

    def cancel(self, task_run_id: str) -> None:
        """Ask for a task run to end."""

    def drop(self, *task_run_ids: str) -> None:
        """Note that one future of each of these task runs is gone."""
