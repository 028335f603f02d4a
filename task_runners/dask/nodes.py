"""What the planner plans with: dispatches that wait or are out, batches, and what is known of bodies."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import msgspec

from dflow.messages import Key

FAR = 4.0
"""How many times what was expected a body counts at most: a few that are long make no label long."""
LEAST = 0.001
"""Seconds that are taken for what was expected at least, to find out what is far from it."""
MOST = 1000
"""How many items a batch has at most."""

Turn = tuple[int, int, int, "Node"]
"""By what the nodes that can go are ordered, the lowest first; and the node."""


class Node(msgspec.Struct, eq=False):
    """One dispatch that waits here or is out. Only nodes of equal `group` share a batch.

    One that goes `alone` shares none; one that `shares` always may. `size` is the bytes of its arguments, and
    of the large values that it takes, as far as they are there. Of what can go a higher `priority` goes
    first, then what is deeper in the graph, then a lower `number`. `upstreams` are those whose end was not
    heard of when it was made, and `above` has their labels.
    """

    key: Key
    label: str
    group: Hashable = None
    alone: bool = False
    shares: bool = False
    priority: int = 0
    depth: int = 0
    number: int = 0
    size: int = 0
    upstreams: tuple[Node, ...] = ()
    above: frozenset[str] = frozenset()
    dependents: list[Node] | None = None
    limit: int = MOST
    open: int = 0
    """How many of its upstreams have not ended."""
    held: int = 0
    """How many of them are not out alone either: while there are any it cannot go alone."""
    inside: int = 0
    """How many of them are in the batch that is being made."""
    waits: bool = False
    """Whether it has not been sent, or has come back."""
    queued: bool = False
    batch: Batch | None = None

    @property
    def turn(self) -> Turn:
        """When it goes."""
        return (-self.priority, -self.depth, self.number, self)

    def __lt__(self, other: Node) -> bool:
        """Tell whether it was numbered before another."""
        return self.number < other.number


@dataclass(slots=True, eq=False)
class Batch:
    """What is out together. `sole` is whether dependents may follow it to Dask."""

    nodes: list[Node]
    sole: bool
    counted: bool
    left: int


@dataclass(slots=True)
class Label:
    """What is known of the bodies of one label, and its nodes that can go.

    `parked` can go alone only: something that they depend on is out alone.
    """

    seconds: float | None = None
    size: float = 0.0
    first: int = 0
    total: float = 0.0
    count: int = 0
    patient_until: float | None = None
    out: int = 0
    ready: list[Turn] = field(default_factory=list)
    parked: dict[Node, None] = field(default_factory=dict)

    def note(self, seconds: float, size: int | None, *, first: int) -> None:
        """Note how long a body took, and the bytes of its value. Of the `first` ones the quickest counts."""
        if self.first < first:
            self.first += 1
            self.seconds = seconds if self.seconds is None else min(self.seconds, seconds)
        else:
            self.total += min(seconds, FAR * max(self.seconds or 0.0, LEAST))
            self.count += 1
        if size is not None:
            self.size += (size - self.size) * (1.0 if self.first <= 1 else 0.2)

    def settle(self) -> None:
        """Move what is known towards what was noted since the last time."""
        if self.count and self.seconds is not None:
            weight = min(0.5, max(0.1, self.count / 50))
            self.seconds += (self.total / self.count - self.seconds) * weight
            self.total, self.count = 0.0, 0


def by_batch(nodes: Iterable[Node]) -> Iterable[list[Node]]:
    """Return those nodes that are out, by the batches in which they are."""
    batches: dict[Batch, list[Node]] = {}
    for node in nodes:
        if node.batch is not None:
            batches.setdefault(node.batch, []).append(node)
    return batches.values()
