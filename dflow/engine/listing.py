"""Telling the catalog how runs have ended, which their records have already: now, or when there is room."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from dflow.engine import run_logs
from dflow.errors import JournalUnavailable, RunTakenOver
from dflow.ports import Catalog

if TYPE_CHECKING:
    from dflow.engine.session import Session

_untold: deque[Callable[[], None]] = deque()


def tell(*calls: Callable[[], None]) -> None:
    """Tell the catalog by these calls, and by those of earlier times that could not be made.

    What cannot be written now is told with the next call, or never: lists look into the records of runs
    whose drivers are gone.
    """
    waiting = [*calls]
    with contextlib.suppress(IndexError):
        while True:
            waiting.append(_untold.popleft())
    for call in waiting:
        try:
            call()
        except JournalUnavailable as error:
            if call in calls and not _untold:
                run_logs.show(logging.WARNING, f"WARNING The list of runs is out of date: {error}")
            _untold.append(call)
        except RunTakenOver as error:
            run_logs.show(logging.WARNING, f"WARNING {error}")


def tell_end(session: Session, catalog: Catalog, epoch: int, *, refused: bool) -> None:
    """Tell it how a run ended, and that nobody drives it; of a refused one only that."""
    run_id = session.root.flow_run_id
    run = session.tracker.shown.get(run_id)
    if refused or run is None or session.tracker.failure is not None:
        tell(partial(catalog.release, run_id, epoch))
    else:
        state = (run.state_name, run.message, run.changed_at)
        tell(partial(catalog.end, run_id, epoch, *state))


def forget() -> None:
    """Forget what could not be told."""
    _untold.clear()
