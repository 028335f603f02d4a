"""Adoption: what the driver before has sent out, and a runner still has, is taken up and not done again.

Dispatches that are under way stay open, and belong to whoever asks for their task runs; what became of them
while nobody listened is applied before the body of the flow begins. Values that are with the runner count as
if they had been made now. A runner whose description has ``outlives = True`` has the method ``reattach``.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from dflow.core.records import Held, Stage
from dflow.engine.adopted import UNDER_WAY
from dflow.engine.claims import Claim
from dflow.engine.tracker import Do
from dflow.errors import DflowError
from dflow.messages import Key

if TYPE_CHECKING:
    from dflow.engine.session import Session

_log = logging.getLogger("dflow.engine")


def reattach(session: Session) -> None:
    """Adopt what the driver before has left at the runner of the root flow run, if that outlives drivers."""
    under_way, values = _candidates(session)
    if not (under_way or values):
        return
    root_id = session.root.flow_run_id
    try:
        runner: Any = session.runner_of(root_id)()
        if not getattr(runner, "outlives", False):
            return
        opened: Any = session.open_runner(root_id)
        claim = Claim(id(opened), follows=opened.follows, shares_memory=opened.shares_memory)

        def found(keys: Collection[Key]) -> None:
            session.adopter = opened if keys else None
            ids = [task_run_id for task_run_id, _ in keys]
            session.tracker.post(Do(lambda ledger: ledger.adopted.take(ledger, ids, claim)))

        opened.reattach(under_way, values, found)
    except DflowError as error:
        _log.info("Nothing is taken up from the driver before: %s", error)


def _candidates(session: Session) -> tuple[list[Key], list[Key]]:
    """Return the dispatches that are under way, and those whose values are with their runner.

    A body that has called others is left: they would have to be told to it what it has asked another driver.
    So is one that may not begin before a driver says so, and all if something is to run again.
    """
    again, table = session.again, session.ledger.table
    if again is None or again.rerun or again.changed:
        return [], []
    callers = {run.parent_id for run in table.task_runs.values()}
    callers |= {flow_run.parent_id or "" for flow_run in table.flow_runs.values()}
    under_way, values = [], []
    for run in table.task_runs.values():
        if run.stage in UNDER_WAY and not run.suspect and run.id not in callers:
            under_way.append((run.id, run.dispatch))
        elif run.stage is Stage.COMPLETED and run.held is Held.RUNNER:
            values.append((run.id, run.dispatch))
    return under_way, values
