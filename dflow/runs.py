"""Looking at recorded runs, while they run and long after; resuming one by its name, and deleting one.

Nothing here unpickles what a run has kept, except `resume` and `rerun`.

>>> from dflow import flow, task
>>> @task
... def square(x: int) -> int:
...     return x * x
>>> @flow
... def squares(count: int) -> list[int]:
...     return square.map(range(count)).result()
>>> squares(3)
[0, 1, 4]
>>> run = find("latest")
>>> run.entry.flow_name, run.state_name
('squares', 'Completed')
>>> with opened(run) as record:
...     [task_run.name for task_run in record.task_runs()]
['square-0', 'square-1', 'square-2']
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from dflow import entrypoints
from dflow.core.records import FlowRun
from dflow.engine import process, retention
from dflow.engine.defined import to_the_end
from dflow.errors import JournalError, NotResumable, RunNotFound
from dflow.journal.holding import held
from dflow.ports import RunEntry, RunReader
from dflow.states import FINAL_TYPES, TYPE_OF_NAME

__all__ = [
    "Listed",
    "delete",
    "find",
    "flow_of",
    "list_runs",
    "opened",
    "rerun",
    "reruns_of",
    "resume",
    "root_of",
    "sizes",
]


@dataclass(frozen=True, slots=True)
class Listed:
    """A root flow run as lists show it: its entry in the catalog, and its state as of now.

    A run that is not final and whose driver is gone reads as ``Interrupted``.

    >>> from dflow import flow
    >>> @flow
    ... def nightly(rows: int) -> int:
    ...     return rows
    >>> nightly(5)
    5
    >>> run = find("latest")
    >>> run.entry.flow_name, run.state_name, run.resumable
    ('nightly', 'Completed', False)
    """

    entry: RunEntry
    state_name: str
    alive: bool

    @property
    def resumable(self) -> bool:
        """Whether ``dflow resume`` would have something to do."""
        return (
            self.state_name != "Completed" and not self.alive and self.entry.flow_name != "session"
        )

    @property
    def last_seen(self) -> float:
        """When it ended, in seconds since 1970; if it did not, when its driver last gave a sign of life."""
        entry = self.entry
        ended = TYPE_OF_NAME[self.state_name] in FINAL_TYPES
        return max(entry.created_at, entry.changed_at, 0.0 if ended else entry.heartbeat)


def list_runs(limit: int | None = None) -> list[Listed]:
    """Return root flow runs, the newest first.

    >>> from dflow import flow
    >>> @flow
    ... def nightly(rows: int) -> int:
    ...     return rows
    >>> nightly(5)
    5
    >>> [run.entry.flow_name for run in list_runs(limit=10)]
    ['nightly']
    """
    here = process.process()
    catalog = here.journal.catalog
    return [
        _listed(entry, catalog.is_alive(entry, here.clock.now())) for entry in catalog.list(limit)
    ]


def find(run: str) -> Listed:
    """Return the run with this id, unique start of an id, name, or the ``latest``. Raises `RunNotFound`.

    >>> from dflow import flow
    >>> @flow
    ... def nightly(rows: int) -> int:
    ...     return rows
    >>> nightly(5)
    5
    >>> find("latest").state_name
    'Completed'
    """
    here = process.process()
    catalog = here.journal.catalog
    entry = catalog.find(run)
    return _listed(entry, catalog.is_alive(entry, here.clock.now()))


@contextmanager
def opened(listed: Listed) -> Iterator[RunReader]:
    """Open the record of a run to look at: its events, task runs, attempts, logs.

    >>> from dflow import flow, get_run_logger
    >>> @flow
    ... def nightly() -> None:
    ...     get_run_logger().critical("The disk is full.")
    >>> nightly()
    >>> with opened(find("latest")) as record:
    ...     [line.message for line in record.logs()]
    ['The disk is full.']
    """
    reader = process.process().journal.read(listed.entry.id)
    try:
        yield reader
    finally:
        reader.close()


def root_of(reader: RunReader) -> FlowRun | None:
    """Return the root flow run of a record, or None if it holds none yet.

    >>> from dflow import flow
    >>> @flow
    ... def nightly(rows: int) -> int:
    ...     return rows
    >>> nightly(5)
    5
    >>> with opened(find("latest")) as record:
    ...     root_of(record).state_name
    'Completed'
    """
    return next(iter(reader.flow_runs()), None)


def sizes(listed: Listed) -> Mapping[str, int]:
    """Return how many bytes a run takes: its ``record``, and what belongs to it beside that, by name.

    >>> from dflow import flow
    >>> @flow
    ... def nightly(rows: int) -> int:
    ...     return rows
    >>> nightly(5)
    5
    >>> sizes(find("latest"))["record"] > 1000
    True
    """
    return retention.sizes(process.process(), listed.entry.id)


def delete(run: str) -> None:
    """Delete a run with all that belongs to it: its record, its results, its checkpoints.

    `run` is an id, a unique start of one, a name, or ``latest``. Raises `RunNotFound`, `RunHeld` while its
    driver lives, and other errors of `EnvironmentProblem`.

    >>> from dflow import flow
    >>> @flow
    ... def nightly(rows: int) -> int:
    ...     return rows
    >>> nightly(5)
    5
    >>> delete("latest")
    >>> find("latest")
    Traceback (most recent call last):
        ...
    dflow.errors.RunNotFound: ...
    """
    here = process.process()
    retention.delete(here, here.journal.catalog.find(run).id)


def resume(run: str, *, rerun_changed: bool = False) -> Any:
    """Resume a run and return its value, in a process that need not have the flow loaded.

    `run` is an id, a unique start of one, a name, or ``latest``. With `rerun_changed` task runs that have
    completed run again where the code of their task has changed. Raises `RunNotFound`, `RunHeld`,
    `NotResumable`, `EntrypointError`, and what the flow raises. See `Flow.resume`.

    >>> resume("clever-pelican-250")
    Traceback (most recent call last):
        ...
    dflow.errors.RunNotFound: ...
    """
    listed = find(run)
    flow = _free_flow_of(listed)
    return to_the_end(flow.kind, flow.resume(listed.entry.id, rerun_changed=rerun_changed))


def rerun(
    run: str,
    /,
    *,
    from_task: str | None = None,
    failed: bool = False,
    new: bool = False,
    **parameters: Any,
) -> Any:
    """Run a recorded run again and return its value, in a process that need not have the flow loaded.

    All of it, or only what follows from a task (`from_task`), or only what has not completed (`failed`); with
    other `parameters` or with `new` as a run of its own. See `Flow.rerun`; raises as `resume` does.

    >>> rerun("clever-pelican-250", from_task="train")
    Traceback (most recent call last):
        ...
    dflow.errors.RunNotFound: ...
    """
    listed = find(run)
    flow = flow_of(listed) if new or parameters else _free_flow_of(listed)
    called = flow.rerun(listed.entry.id, from_task=from_task, failed=failed, new=new, **parameters)
    return to_the_end(flow.kind, called)


def reruns_of(listed: Listed) -> list[Listed]:
    """Return the runs that were made by running this one again with other parameters, the newest first.

    >>> from dflow import flow
    >>> @flow
    ... def nightly(rows: int) -> int:
    ...     return rows
    >>> nightly(5), nightly.rerun("latest", rows=6)
    (5, 6)
    >>> new, old = list_runs()
    >>> [run.entry.name for run in reruns_of(old)] == [new.entry.name]
    True
    """
    return [each for each in list_runs() if each.entry.details.get("rerun_of") == listed.entry.id]


def _free_flow_of(listed: Listed) -> Any:
    """Return the flow of a run that nobody drives; a live driver is reason enough not to load it."""
    if listed.alive and listed.entry.details.get("entrypoint") is not None:
        raise held(listed.entry)
    return flow_of(listed)


def flow_of(listed: Listed) -> Any:
    """Return the flow of a recorded run, loaded again. Raises `EntrypointError` and `NotResumable`.

    >>> from dflow.examples.three_steps import three_steps
    >>> error = three_steps(20)
    preprocess: 20 points
    train: slope ...
    evaluate: mean error ...
    >>> flow_of(find("latest")).name
    'three-steps'
    """
    if listed.entry.details.get("entrypoint") is None:
        raise NotResumable(
            f"Run '{listed.entry.name}' is work outside of flows: it has no flow to run again. "
            "Only runs of flows can be resumed."
        )
    return entrypoints.load_recorded(listed.entry)


def _listed(entry: RunEntry, alive: bool) -> Listed:
    if alive:
        name = "Running" if entry.state_name == "Pending" else entry.state_name
    elif TYPE_OF_NAME[entry.state_name] in FINAL_TYPES:
        name = entry.state_name
    else:
        name = _recorded_end(entry) or "Interrupted"
    return Listed(entry, name, alive)


def _recorded_end(entry: RunEntry) -> str | None:
    """Return the final state of a run whose driver died before it could tell the catalog, if it has one."""
    try:
        with closing(process.process().journal.read(entry.id)) as reader:
            root = root_of(reader)
    except (RunNotFound, JournalError):  # whoever asks for the record itself will hear of it
        return None
    return root.state_name if root is not None and root.stage.final else None
