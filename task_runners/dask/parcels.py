"""What the book is about: dispatches, and the parcels in which they go, each one task of Dask."""

from __future__ import annotations

from dataclasses import dataclass

from dflow.core.events import AttemptSucceeded, Outcome
from dflow.core.records import Stored
from dflow.messages import ANYWHERE, Placement, Work
from task_runners.dask.nodes import Node

DaskKey = tuple[str, int]
"""The name of a task of Dask: a prefix, and a number that is never used twice."""
BATCH = "-batch-0"
"""What the prefix of batches has behind the task's name, of those of one too."""


class Entry(Node, eq=False):
    """One dispatch: what it is, what it depends on at this runner, where it is, and what became of it.

    `sources` are those whose values it takes, ended or not. It is `place` in its `parcel`, which is None
    before it goes, and again once it needs nothing of it any more.
    """

    ticket: int = 0
    work: Work | None = None
    sources: tuple[Entry, ...] = ()
    parcel: Parcel | None = None
    place: int = 0
    started: bool = False
    worker: str = ""
    outcome: Outcome | None = None
    ended: bool = False
    good: bool = False
    gone: bool = False
    due: float | None = None
    lost_on: str | None = None

    @property
    def name(self) -> str:
        """The name of its task run."""
        return "" if self.work is None else self.work.info.task_run_name

    @property
    def copy(self) -> bytes | None:
        """The pickled value, where it came with the outcome."""
        return self.outcome.value if isinstance(self.outcome, AttemptSucceeded) else None

    @property
    def came(self) -> bool:
        """Whether its outcome is here, with the value if it has one."""
        ended_well = isinstance(self.outcome, AttemptSucceeded)
        return self.outcome is not None and (not ended_well or self.copy is not None)

    @property
    def stored(self) -> Stored | None:
        """Where its value is stored."""
        return self.outcome.stored if isinstance(self.outcome, AttemptSucceeded) else None

    @property
    def kept(self) -> bool:
        """Whether its value can be had without Dask."""
        return self.copy is not None or self.stored is not None

    @property
    def on_worker(self) -> bool:
        """Whether it dies with its worker: its body is known to run there, or its value to lie there."""
        if self.outcome is None:
            return self.started
        return isinstance(self.outcome, AttemptSucceeded) and not self.kept


@dataclass(slots=True, eq=False)
class Parcel:
    """What is with Dask as one task: one dispatch, or several that run one after the other.

    `held` is how many of them may need it yet. It is `over` when Dask has said its last word of it, and
    `there` when its values are. The worker that had it was told to leave if it is `retired`.
    """

    ticket: int
    dask_key: DaskKey
    entries: list[Entry]
    held: int = 0
    over: bool = False
    there: bool = False
    retired: str = ""
    due: float | None = None

    @property
    def sole(self) -> bool:
        """Whether there is only one dispatch in it."""
        return len(self.entries) == 1

    @property
    def alone(self) -> bool:
        """Whether it went as no batch, so that what depends on it may have followed it to Dask."""
        return self.sole and BATCH not in self.dask_key[0]

    @property
    def light(self) -> bool:
        """Whether it is done, and its worker has no value of it that did not come with an outcome."""
        return self.there and all(entry.came for entry in self.entries)

    @property
    def left(self) -> list[Entry]:
        """Those that are with it and have not ended."""
        return [entry for entry in self.entries if entry.parcel is self and not entry.ended]

    @property
    def unheard(self) -> list[Entry]:
        """Those of them of which nobody has said what became of them."""
        return [entry for entry in self.left if entry.outcome is None]

    @property
    def depth(self) -> int:
        """How far down the graph its first dispatch is."""
        return self.entries[0].depth

    @property
    def placement(self) -> Placement:
        """Where and when it may go: what shares a parcel asks for the same."""
        work = self.entries[0].work
        return ANYWHERE if work is None else work.placement

    @property
    def name(self) -> str:
        """The name of the first of its task runs."""
        return self.entries[0].name
