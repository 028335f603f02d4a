"""How a flow run ends, by what its body has returned: its final state, its value, or why there is none."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from dflow.attempts.calls import swap
from dflow.engine import outcomes
from dflow.engine.futures import TaskFuture
from dflow.engine.scope import Status
from dflow.errors import MissingResult
from dflow.states import TYPE_OF_NAME, State, StateType


@dataclass(frozen=True, slots=True)
class Ended:
    """How a flow run ended: its final state, its value, or the exception to raise."""

    state_name: str
    message: str
    value: Any = None
    error: BaseException | None = None
    at: float | None = None

    @property
    def status(self) -> Status:
        """The final state, as it is shown."""
        return Status(self.state_name, self.message, self.at)


def worked_out(returned: Any) -> Ended:
    """Return how a flow run has ended whose body returned this."""
    states: list[State] = []

    def note(item: TaskFuture[Any] | State) -> State:
        state = item.state if isinstance(item, TaskFuture) else item
        states.append(state)
        return state

    shape = swap(returned, note, (TaskFuture, State))
    bad = [state for state in states if not state.is_completed()]
    if isinstance(shape, State):
        ended = _as_returned(shape)
    elif not bad:
        ended = Ended("Completed", f"{len(states)} of {len(states)} completed." if states else "")
    else:
        cancelled = sum(state.is_cancelled() for state in bad)
        ended = Ended("Cancelled" if cancelled else "Failed", _counted(bad, cancelled, len(states)))
    if bad:
        return replace(ended, error=_failure_of(bad[0]))
    if isinstance(shape, State):
        inside = worked_out(shape.result())  # one that was made by hand may hold futures
        return inside if inside.error is not None else replace(ended, value=inside.value)
    value = swap(shape, lambda state: state.result(), State) if states else returned
    return replace(ended, value=value)


def _counted(bad: list[State], cancelled: int, total: int) -> str:
    """Say how many of what was returned did not complete."""
    failed = len(bad) - cancelled
    if not cancelled:
        return f"{failed}/{total} task runs failed."
    said = f"{cancelled}/{total} task runs were cancelled"
    return f"{said}, {failed}/{total} failed." if failed else f"{said}."


def _failure_of(state: State) -> BaseException | None:
    """Return the exception behind a state; one that is not final has none."""
    with suppress(MissingResult):
        error = state.result(raise_on_failure=False)
        return error if isinstance(error, BaseException) else None
    return None


def _as_returned(state: State) -> Ended:
    """Return the end that a flow gave itself by returning one state."""
    if not state.is_final():
        return Ended("Failed", f"It returned a state that is not final: '{state.name}'.")
    known = TYPE_OF_NAME.get(state.name) is state.type
    return Ended(state.name if known else state.type.capitalize(), state.message)


def outcome_of(flow_name: str, ended: Ended) -> Any:
    """Return the value of a flow run that completed, or raise why it did not."""
    if ended.error is not None:
        raise ended.error
    if TYPE_OF_NAME[ended.state_name] is StateType.COMPLETED:
        return ended.value
    raise outcomes.failure_of(flow_name, ended.state_name, ended.message, None)
