"""What is sent to the workers next, and what travels together: small dispatches share one task of Dask.

1. Everything that decides on batches is here; it knows no Dask, no clock and no luck: it is told the time.
2. What is known to be small waits here and goes in batches, a few for each slot of the workers, so that
   none waits for the driver and none has much more to do than others.
3. What is long, or large, or not known to be small goes alone; what is long goes at once, in any number up to
   a window: the scheduler of Dask is good at that.
4. A dependent goes in one batch with what it depends on, behind it; or when that has ended; or, alone, when
   that is out alone: then Dask passes the value on. What takes a value of more than `BYTES` always goes so:
   it runs where the value is, and lets it go soon.

How long a body takes is learned by its label, from bodies that have ended. The first ones may have paid for
imports, so the quickest of them counts; later ones count by their mean, where what is far off counts little.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import heappop, heappush

from task_runners.dask.nodes import MOST, Batch, Label, Node, Turn, by_batch

TARGET = 0.05
"""Seconds of work in a batch: much more than what Dask takes for a task, and soon over."""
ASKED = 1.0
"""Seconds of work in a batch of bodies that somebody wants to share batches."""
OVERHEAD = 0.00004
"""Seconds that an item of a batch takes beside its body."""
LONG = 0.05
"""From how many seconds on a body goes alone."""
BYTES = 1_000_000
"""How many bytes batches of several take at most, as arguments and as large values from elsewhere."""
AHEAD = 2
"""How many batches are out for each slot: one that runs, and one that it goes on with."""
PATIENCE = 0.2
"""Seconds after which a body of which nothing is known, and that has not ended, counts as long."""
WINDOW = 10_000
"""How many tasks are with Dask at once."""
SMALLER = 4
"""By what a batch is divided whose worker has died, when its items are sent again."""


class Planner:
    """Decides what is sent.

    `slots` is how many bodies can run at once; values of more than `small` bytes are large.
    """

    def __init__(self, slots: int, small: int = 16_384) -> None:
        self.slots = slots
        self._small = small
        self._large = max(small, BYTES)
        self._heavy: set[str] = set()
        self._labels: dict[str, Label] = {}
        self._batches = 0
        self._tasks = 0
        self._now = 0.0
        self._share = 1

    # What comes -------------------------------------------------------------------------------------

    def add(self, node: Node) -> None:
        """Take a node in, behind those that it depends on."""
        if node.upstreams:
            node.open = len(node.upstreams)
            node.above = frozenset([upstream.label for upstream in node.upstreams])
            for upstream in node.upstreams:
                behind = upstream.dependents = upstream.dependents or []
                behind.append(node)
                node.held += upstream.batch is None or not upstream.batch.sole
        if node.label not in self._labels:
            self._labels[node.label] = Label()
        self._wait(node)

    def add_sent(self, nodes: Iterable[Node], *, sole: bool) -> None:
        """Take in nodes that depend on nothing and are out: what is left of a batch, or a sole one."""
        nodes = list(nodes)
        for node in nodes:
            label = self._labels.setdefault(node.label, Label())
        if nodes:
            self._send(nodes, label, alone=sole)

    def remove(self, node: Node) -> None:
        """Forget a node that came to nothing; what waits for it would go without it."""
        self._leave(node)
        self._free(node)

    def ended(self, node: Node, seconds: float | None, size: int | None, now: float) -> None:
        """Note that a node has ended well; how many seconds its body took, and bytes its value has."""
        self._now = now
        label = self._labels[node.label]
        if seconds is not None:
            label.note(seconds, size, first=AHEAD * self.slots)
        if size is not None and size > self._small:
            for dependent in node.dependents or ():
                dependent.size += size
        self._leave(node)
        self._free(node)

    def began(self, node: Node, now: float) -> None:
        """Note that the start of a node was heard of: it is a long one, perhaps waiting for others.

        Its batch has given back the rest, and others may go in its place.
        """
        label = self._labels[node.label]
        if label.seconds is None:
            label.patient_until = now
        self.sent_over([node], now)

    def gave_back(self, nodes: Iterable[Node], now: float) -> None:
        """Take nodes back that had not begun where they were sent."""
        self._now = now
        back = [node for node in nodes if node.batch is not None]
        for node in back:
            self._over(node)
            node.batch = None
        for node in back:
            self._wait(node)

    def lost(self, nodes: Iterable[Node], now: float) -> list[Node]:
        """Take nodes back whose worker died with them, in the order in which they were to run.

        They go again in smaller batches: one of the first of them may have brought the worker down. Return
        those that were alone: there is nothing more to find out.
        """
        self._now = now
        alone = []
        for left in by_batch(nodes):
            if len(left) == 1:
                alone += left
                continue
            for place, node in enumerate(left):
                node.limit = max(1, min(place // 2, len(left) // SMALLER))
            self.gave_back(left, now)
        return alone

    def sent_over(self, nodes: Iterable[Node], now: float) -> None:
        """Note that the task of a batch is over, whatever became of its nodes."""
        self._now = now
        for node in nodes:
            if node.batch is not None and node.batch.counted:
                node.batch.counted = False
                self._batches -= 1

    # What goes --------------------------------------------------------------------------------------

    def plan(self, now: float) -> list[list[Node]]:
        """Return what is to be sent now, each batch in the order in which it is to run."""
        self._now = now
        self._learn()
        self._share = math.ceil(self._roots() / self.slots)
        sent: list[list[Node]] = []
        while self._tasks < WINDOW and (batch := self._next_alone() or self._next_batch()):
            sent.append(batch)
        return sent

    def expected(self, nodes: Iterable[Node]) -> float:
        """Return how many seconds nodes are expected to take, one after the other."""
        return sum(map(self.cost, nodes))

    def cost(self, node: Node) -> float:
        """Return how many seconds a node is expected to take in a batch."""
        return OVERHEAD + (self._labels[node.label].seconds or 0.0)

    def next_look(self) -> float | None:
        """Return when to plan again though nothing has happened; None if there is no such time."""
        due = [
            label.patient_until
            for label in self._labels.values()
            if label.patient_until is not None and label.seconds is None and label.ready
        ]
        later = [time for time in due if time > self._now]
        return min(later, default=None)

    # Waiting and going --------------------------------------------------------------------------------

    def _wait(self, node: Node) -> None:
        node.waits = True
        self._queue(node)

    def _queue(self, node: Node) -> None:
        """Let a node stand where it can go from, if it can."""
        if node.queued or node.held or not node.waits:
            return
        label = self._labels[node.label]
        if node.open and not self._goes_alone(node, label):
            label.parked[node] = None
            return
        node.queued = True
        heappush(label.ready, node.turn)

    def _goes_alone(self, node: Node, label: Label) -> bool:
        """Tell whether a node shares no batch, as far as is known."""
        if node.alone or node.limit == 1:
            return True
        if label.seconds is None:
            return True
        if node.shares:
            return False
        large = label.size > self._small or not self._heavy.isdisjoint(node.above)
        return large or label.seconds >= LONG

    def _leave(self, node: Node) -> None:
        """Take a node out of wherever it is."""
        node.waits = False
        self._labels[node.label].parked.pop(node, None)
        self._over(node)
        node.batch = None

    def _over(self, node: Node) -> None:
        """Note that a node is not out any more."""
        batch = node.batch
        if batch is None:
            return
        self._labels[node.label].out -= 1
        if batch.sole:
            for dependent in node.dependents or ():
                dependent.held += 1
        batch.left -= 1
        if not batch.left:
            self._tasks -= 1
            if batch.counted:
                batch.counted = False
                self._batches -= 1

    def _free(self, node: Node) -> None:
        """Let those go that wait for a node, as far as that is what they wait for."""
        dependents, node.dependents = node.dependents, None
        for dependent in dependents or ():
            dependent.open -= 1
            dependent.held -= 1
            self._labels[dependent.label].parked.pop(dependent, None)
            self._queue(dependent)

    # Measuring ----------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Take in what was measured since the last time; what goes alone by now need not wait."""
        for label in self._labels.values():
            label.settle()
        heavy = {name for name, label in self._labels.items() if label.size > self._large}
        heavier = not heavy <= self._heavy
        self._heavy = heavy
        for label in self._labels.values():
            if label.parked and (heavier or (label.seconds or 0.0) >= LONG):
                parked, label.parked = label.parked, {}
                for node in parked:
                    self._queue(node)

    # Sending alone --------------------------------------------------------------------------------------

    def _next_alone(self) -> list[Node]:
        """Return one that goes alone: what is long, or of what is not known one of a few to learn from."""
        for label in self._labels.values():
            node = self._first(label)
            if node is not None and self._goes_alone(node, label) and self._may_go(node, label):
                heappop(label.ready)
                return self._send([node], label, alone=True)
        return []

    def _first(self, label: Label) -> Node | None:
        """Return the first of those in a queue that can still go from there."""
        while label.ready:
            node = label.ready[0][-1]
            free = node.queued and node.waits and not node.held
            if free and (not node.open or self._goes_alone(node, label)):
                return node
            heappop(label.ready)
            if node.queued:
                node.queued = False
                self._queue(node)
        return None

    def _may_go(self, node: Node, label: Label) -> bool:
        """Tell whether one more may go; of what is not known a few, none behind another, until it is long."""
        if label.seconds is not None or node.alone or node.limit == 1:
            return True
        if label.patient_until is not None and label.patient_until <= self._now:
            return True
        behind = any(up.label == node.label for up in node.upstreams if up.batch)
        return label.out < AHEAD * self.slots and not behind

    def _send(self, nodes: list[Node], label: Label, *, alone: bool) -> list[Node]:
        """Note that nodes go, together."""
        batch = Batch(nodes, sole=alone, counted=not alone, left=len(nodes))
        self._tasks += 1
        self._batches += batch.counted
        if label.seconds is None and label.patient_until is None:
            label.patient_until = self._now + PATIENCE
        for node in nodes:
            node.waits, node.queued, node.batch = False, False, batch
            self._labels[node.label].out += 1
            if alone:
                for dependent in node.dependents or ():
                    dependent.held -= 1
                    self._queue(dependent)
        return nodes

    # Sending together -----------------------------------------------------------------------------------

    def _next_batch(self) -> list[Node]:
        """Return one batch, the best that there is; nothing if nothing can go, or enough is out."""
        first = self._pop(None) if self._batches < AHEAD * self.slots else None
        if first is None:
            return []
        making = _Making(self, first)
        making.fill()
        return self._send(making.nodes, self._labels[first.label], alone=False)

    def _pop(self, like: Node | None) -> Node | None:
        """Take the best of the nodes that can share a batch: with `like`, if that is given."""
        best: Label | None = None
        for label in self._labels.values():
            node = self._first(label)
            if node is None or self._goes_alone(node, label):
                continue
            fits = like is None or node.group == like.group
            if fits and (best is None or label.ready[0] < best.ready[0]):
                best = label
        if best is None:
            return None
        node = heappop(best.ready)[-1]
        node.queued = False
        return node

    def _roots(self) -> int:
        """Return how many nodes can go together with others."""
        return sum(
            len(label.ready)
            for label in self._labels.values()
            if (node := self._first(label)) is not None and not self._goes_alone(node, label)
        )

    def _may_follow(self, node: Node, first: Node) -> bool:
        """Tell whether a node whose upstreams are in a batch may be in it too, behind them."""
        fits = node.waits and node.group == first.group
        return fits and not self._goes_alone(node, self._labels[node.label])


class _Making:
    """One batch that is being made."""

    def __init__(self, planner: Planner, first: Node) -> None:
        self.nodes: list[Node] = []
        self._planner = planner
        self._first = first
        self._behind: list[Turn] = []
        self._touched: list[Node] = []
        self._seconds = 0.0
        self._bytes = 0
        self._limit = MOST
        self._roots = planner._share
        self._take(first)

    def fill(self) -> None:
        """Take what fits: what depends on what is in it already comes first, as it is deeper."""
        while self._behind or self._roots > 0:
            if self._behind:
                node = heappop(self._behind)[-1]
                if self._fits(node):
                    self._take(node)
                continue
            found = self._planner._pop(self._first)
            if found is None:
                break
            if not self._fits(found):
                self._planner._queue(found)
                break
            self._take(found)
        for node in self._touched:
            node.inside = 0

    def _fits(self, node: Node) -> bool:
        target = ASKED if node.shares and self._first.shares else TARGET
        return (
            self._seconds + self._planner.cost(node) <= target
            and self._bytes + node.size <= BYTES
            and len(self.nodes) < min(self._limit, node.limit)
        )

    def _take(self, node: Node) -> None:
        self._roots -= not node.inside
        self.nodes.append(node)
        self._seconds += self._planner.cost(node)
        self._bytes += node.size
        self._limit = min(self._limit, node.limit)
        for dependent in node.dependents or ():
            if not dependent.inside:
                self._touched.append(dependent)
            dependent.inside += 1
            follows = dependent.inside == dependent.open
            if follows and self._planner._may_follow(dependent, self._first):
                heappush(self._behind, dependent.turn)
