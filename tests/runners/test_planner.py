"""The planner of batches: a model of workers runs what it sends, whatever bodies take and whatever fails."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from task_runners.dask.nodes import MOST, Node
from task_runners.dask.planner import AHEAD, BYTES, LONG, PATIENCE, Planner

SHORT = 0.001
SLOW = 1.0


def node(number: int, *upstreams: Node, label: str = "task", **options: object) -> Node:
    """Return a dispatch."""
    made = Node((f"run{number}", 1), label, number=number, upstreams=upstreams)
    made.depth = max((up.depth + 1 for up in upstreams), default=0)
    for name, value in options.items():
        setattr(made, name, value)
    return made


def nodes(count: int, start: int = 0, **options: object) -> list[Node]:
    """Return dispatches that depend on nothing."""
    return [node(start + n, **options) for n in range(count)]  # type: ignore[arg-type]  # of any kind


def informed(slots: int = 2, seconds: float = SHORT, size: int = 10) -> Planner:
    """Return a planner that knows how long the bodies of "task" take."""
    planner = Planner(slots)
    for one in nodes(AHEAD * slots, start=-100):
        planner.add(one)
        planner.plan(0.0)
        planner.ended(one, seconds, size, 0.0)
    assert planner.plan(0.0) == []
    return planner


def add(planner: Planner, many: Sequence[Node]) -> None:
    """Give all of them to the planner."""
    for one in many:
        planner.add(one)


# What shares a batch ------------------------------------------------------------------------------------


def test_nothing_is_known() -> None:
    """Of bodies that nobody knows a few go, each alone; when they do not end, all do."""
    planner = Planner(2)
    add(planner, nodes(20))
    assert [len(batch) for batch in planner.plan(0.0)] == [1] * AHEAD * 2
    assert planner.plan(0.1) == []
    assert planner.next_look() == PATIENCE
    assert [len(batch) for batch in planner.plan(PATIENCE)] == [1] * 16


def test_nothing_is_known_of_a_chain() -> None:
    """Of a chain the first goes alone, and the rest together once that has ended; if it is long, all go."""
    for slow in (False, True):
        planner, chain = Planner(2), nodes(1)
        for number in range(1, 20):
            chain.append(node(number, chain[-1]))
        add(planner, chain)
        assert planner.plan(0.0) == [chain[:1]]
        assert planner.plan(0.1) == []
        if slow:
            assert planner.plan(PATIENCE) == [[each] for each in chain[1:]]
        else:
            planner.ended(chain[0], SHORT, 10, 0.1)
            assert planner.plan(0.1) == [chain[1:]]


def test_what_follows_under_another_label_is_found_out_too() -> None:
    """Behind one that is not known yet one of another label goes at once: Dask passes the value on."""
    planner = Planner(2)
    first = node(0)
    second = node(1, first, label="other")
    add(planner, [first, second])
    assert planner.plan(0.0) == [[first], [second]]


def test_small_ones_share() -> None:
    """Small bodies go in as many batches as are wanted ahead, of even sizes, the rest later."""
    planner = informed()
    many = nodes(1000)
    add(planner, many)
    batches = planner.plan(0.0)
    assert len(batches) == AHEAD * 2
    assert all(30 <= len(batch) <= 60 for batch in batches)
    assert [one for batch in batches for one in batch] == many[: sum(map(len, batches))]
    assert planner.plan(0.0) == []
    for one in batches[0]:
        planner.ended(one, SHORT, 10, 0.0)
    assert len(planner.plan(0.0)) == 1


def test_a_few_long_ones_make_no_label_long() -> None:
    """Where one in fifty takes its time the others go on sharing; where all do, none does before long."""
    planner = informed()

    def run(start: int, slow: int) -> float:
        many = nodes(50, start)
        add(planner, many)
        left = iter([SLOW] * slow + [SHORT] * (50 - slow))
        while batches := planner.plan(0.0):
            for one in itertools.chain(*batches):
                planner.ended(one, next(left), 10, 0.0)
        return planner.cost(many[0])

    assert all(run(1000 * n, slow=1) < 3 * SHORT for n in range(5))
    assert max(run(1000 * n, slow=50) for n in range(5)) > LONG


def test_tiny_ones_are_bounded_by_their_number() -> None:
    """However quick bodies are, a batch has an end."""
    planner = informed(seconds=0.0)
    add(planner, nodes(10_000))
    assert {len(batch) for batch in planner.plan(0.0)} == {MOST}


def test_all_slots_get_their_share() -> None:
    """A few small ones do not go all to one worker."""
    planner = informed()
    add(planner, nodes(8))
    assert [len(batch) for batch in planner.plan(0.0)] == [4, 4]


def test_long_ones_never_share() -> None:
    """Sixteen bodies of a second go at once, each alone."""
    planner = informed(seconds=1.0)
    add(planner, nodes(16))
    assert [len(batch) for batch in planner.plan(0.0)] == [1] * 16


def test_large_values_never_share() -> None:
    """What has values that do not ride along goes alone, however quick it is."""
    planner = informed(size=1_000_000)
    add(planner, nodes(5))
    assert [len(batch) for batch in planner.plan(0.0)] == [1] * 5


def test_the_first_call_may_be_slow() -> None:
    """The first bodies pay for imports: the quickest of the first few counts."""
    planner = Planner(2)
    first = nodes(4)
    add(planner, first)
    planner.plan(0.0)
    for one, seconds in zip(first, (3.0, 2.0, SHORT, SHORT), strict=True):
        planner.ended(one, seconds, 10, 0.0)
    add(planner, nodes(100, start=10))
    assert max(len(batch) for batch in planner.plan(0.0)) > 20


def test_what_is_known_changes() -> None:
    """When bodies turn out longer than they were, they go alone; and together again when they get quicker."""
    planner = informed()
    for seconds, wanted in ((1.0, {1}), (0.0001, {50})):
        for batch in itertools.repeat(None, 30):
            assert batch is None
            many = nodes(20)
            add(planner, many)
            while sent := planner.plan(0.0):
                for one in itertools.chain(*sent):
                    planner.ended(one, seconds, 10, 0.0)
        many = nodes(100)
        add(planner, many)
        sent = planner.plan(0.0)
        assert {len(batch) for batch in sent} == wanted
        for one in itertools.chain(*sent):
            planner.ended(one, seconds, 10, 0.0)


def test_asked_for() -> None:
    """Who says so travels alone, or shares though it is long."""
    planner = informed()
    add(planner, nodes(4, alone=True))
    assert [len(batch) for batch in planner.plan(0.0)] == [1] * 4
    planner = informed(seconds=2 * LONG)
    add(planner, nodes(40, shares=True))
    assert max(len(batch) for batch in planner.plan(0.0)) > 5


def test_groups_do_not_mix() -> None:
    """What is placed differently never shares a batch, other tasks of the same place do."""
    planner = informed()
    for label in ("task", "other"):
        planner.add(probe := node(-1, label=label))
        planner.plan(0.0)
        planner.ended(probe, SHORT, 10, 0.0)
    add(planner, nodes(4, group="here"))
    add(planner, nodes(4, start=4, label="other", group="here"))
    add(planner, nodes(4, start=8, group="there"))
    batches = planner.plan(0.0)
    assert all(len({one.group for one in batch}) == 1 for batch in batches)
    assert any(len({one.label for one in batch}) == 2 for batch in batches)


def test_arguments_are_bounded() -> None:
    """Large arguments make small batches."""
    planner = informed()
    add(planner, nodes(10, size=400_000))
    assert [len(batch) for batch in planner.plan(0.0)] == [2, 2, 2, 2]


# What depends on what -----------------------------------------------------------------------------------


def test_a_chain_is_one_batch() -> None:
    """Each link behind the one before."""
    planner = informed(seconds=0.0)
    links = [node(0)]
    for number in range(1, 500):
        links.append(node(number, links[-1]))
    add(planner, links)
    assert planner.plan(0.0) == [links]


def test_deeper_ones_go_first() -> None:
    """Columns of a map over a map go from top to bottom: intermediates do not pile up."""
    planner = informed(slots=1)
    tops = nodes(50)
    bottoms = [node(100 + top.number, top) for top in tops]
    add(planner, [*tops, *bottoms])
    first, *_ = planner.plan(0.0)
    assert first[:4] == [tops[0], bottoms[0], tops[1], bottoms[1]]


def test_behind_a_batch_that_is_out() -> None:
    """What depends on an item of it waits for that item, and for nothing else of it."""
    planner = informed()
    tops = nodes(2)
    add(planner, tops)
    (batch, *_) = planner.plan(0.0)
    bottoms = [node(10 + top.number, top) for top in tops]
    add(planner, bottoms)
    assert planner.plan(0.0) == []
    planner.ended(batch[0], SHORT, 10, 0.0)
    assert planner.plan(0.0) == [[bottoms[0]]]


def test_behind_one_that_is_out_alone() -> None:
    """What is long follows it to Dask at once; what is small waits for its end."""
    planner = informed(seconds=1.0)
    planner.add(probe := node(-1, label="small"))
    planner.plan(0.0)
    planner.ended(probe, SHORT, 10, 0.0)
    top = node(0)
    long, small = node(1, top), node(2, top, label="small")
    add(planner, [top, long, small])
    assert planner.plan(0.0) == [[top], [long]]
    planner.ended(top, 1.0, 10, 0.0)
    assert planner.plan(0.0) == [[small]]


def heavy() -> Planner:
    """Return a planner that knows that values of "task" are large, and those of "small" are not."""
    planner = informed(size=10 * BYTES)
    planner.add(probe := node(-1, label="small"))
    planner.plan(0.0)
    planner.ended(probe, SHORT, 10, 0.0)
    return planner


def test_behind_a_large_value() -> None:
    """What takes one goes at once, alone, though it is small: Dask passes the value on, and lets it go."""
    planner = heavy()
    tops = nodes(3)
    bottoms = [node(10 + top.number, top, label="small") for top in tops]
    add(planner, [*tops, *bottoms])
    assert planner.plan(0.0) == [[one] for one in [*tops, *bottoms]]


def test_values_turn_out_large() -> None:
    """What waited, as its upstream's value was not known to be large, goes when it is."""
    planner = informed()
    planner.add(top := node(0, label="new"))
    assert planner.plan(0.0) == [[top]]
    planner.add(other := node(1, label="new"))
    planner.add(bottom := node(2, other))
    assert planner.plan(0.0) == [[other]]
    planner.ended(top, SHORT, 10 * BYTES, 0.0)
    assert planner.plan(0.0) == [[bottom]]


def test_large_values_that_are_there() -> None:
    """A batch brings no more of them to one place than of arguments."""
    planner = informed()
    tops = nodes(6, label="new", alone=True)
    add(planner, tops)
    planner.plan(0.0)
    bottoms = [node(10 + top.number, top) for top in tops]
    add(planner, bottoms)
    for top in tops:
        planner.ended(top, SHORT, BYTES // 2, 0.0)
    assert planner.plan(0.0) == [bottoms[:2], bottoms[2:4], bottoms[4:]]


def test_what_came_to_nothing() -> None:
    """Nothing goes of what is removed, nor of what waited for it and is removed with it."""
    planner = informed()
    top = node(0)
    bottom = node(1, top)
    add(planner, [top])
    planner.plan(0.0)
    planner.add(bottom)
    planner.remove(top)
    planner.remove(bottom)
    assert planner.plan(0.0) == []
    assert [top.waits, bottom.waits] == [False, False]


# What goes wrong ------------------------------------------------------------------------------------------


def test_given_back() -> None:
    """What a batch gives back goes again, while its slow item is still out."""
    planner = informed(slots=1)
    many = nodes(8)
    add(planner, many)
    (batch,) = planner.plan(0.0)
    planner.began(batch[0], 0.1)
    planner.gave_back(batch[1:], 0.1)
    assert [one for again in planner.plan(0.1) for one in again] == batch[1:]


def test_adopted_ones_are_given_back() -> None:
    """What was out before it was known, and comes back, goes once more, each once."""
    planner = informed(slots=1)
    many = nodes(6)
    planner.add_sent(many, sole=False)
    assert not any(one.waits for one in many)
    for one in many[:2]:
        planner.ended(one, SHORT, 10, 0.0)
    planner.gave_back(many[3:], 0.0)
    assert sorted(itertools.chain(*planner.plan(0.0))) == many[3:]
    assert not any(one.waits for one in many)


def test_a_queue_that_was_passed_over() -> None:
    """What stood in the queue of its label, went behind another, and comes back goes once."""
    planner = Planner(1)
    add(planner, known := [node(0, label="a"), *nodes(2, start=1, label="b")])
    assert len(planner.plan(0.0)) == 3
    top = node(3, label="a", priority=2)
    bottom = node(4, top, label="b")
    add(planner, [top, bottom])
    assert planner.plan(0.0) == [[top]]
    planner.gave_back([top], 0.0)
    for one in known:
        planner.ended(one, SHORT, 10, 0.0)
    planner.add(before := node(5, label="a", priority=3, group="before"))
    planner.add(other := node(6, label="b", priority=1, group="other"))
    assert planner.plan(0.0) == [[before], [top, bottom]]
    planner.ended(top, SHORT, 10, 0.0)
    planner.sent_over([bottom], 0.0)
    planner.gave_back([bottom], 0.0)
    assert planner.plan(0.0) == [[other]]
    planner.ended(before, SHORT, 10, 0.0)
    assert planner.plan(0.0) == [[bottom]]


def test_behind_what_is_left_of_a_batch() -> None:
    """What is long waits for the last one of an adopted batch, and follows one that went alone."""
    for sole in (True, False):
        planner = informed(seconds=1.0)
        planner.add_sent([top := node(0)], sole=sole)
        planner.add(bottom := node(1, top))
        assert planner.plan(0.0) == ([[bottom]] if sole else [])
        planner.ended(top, 1.0, 10, 0.0)
        assert planner.plan(0.0) == ([] if sole else [[bottom]])


def test_bodies_that_wait_for_small_ones() -> None:
    """When all that is out waits for others, those still go."""
    planner = informed(slots=1)
    parents = nodes(AHEAD)
    for parent in parents:
        planner.add(parent)
        assert planner.plan(0.0) == [[parent]]
    children = nodes(3, start=10)
    add(planner, children)
    assert planner.plan(0.0) == []
    for parent in parents:
        planner.began(parent, 0.1)
    assert [one for batch in planner.plan(0.1) for one in batch] == children


def test_the_culprit_is_found() -> None:
    """One that kills its worker among a thousand is alone after a few deaths."""
    for place in (0, 1, 7, 500, 999):
        planner = informed(slots=1, seconds=0.0)
        many = nodes(1000)
        poison = many[place]
        add(planner, many)
        deaths, left = 0, set(many)
        found: Node | None = None
        while found is None:
            sent = planner.plan(0.0)
            assert sent
            for batch in sent:
                if poison not in batch:
                    left.difference_update(batch)
                    for one in batch:
                        planner.ended(one, 0.0, 10, 0.0)
                    continue
                deaths += 1
                alone = planner.lost(batch, 0.0)
                assert alone in ([], [poison])
                found = alone[0] if alone else None
        assert deaths <= 12
        assert left >= {poison}


# A model ------------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """Runs what a planner sends, in steps that a test chooses, and sees that all is in order."""

    planner: Planner
    seconds: dict[Node, float | None]
    sizes: dict[Node, int]
    now: float = 0.0
    out: list[list[Node]] = field(default_factory=list)
    done: list[Node] = field(default_factory=list)
    left: set[Node] = field(default_factory=set)

    def adopt(self, batch: list[Node], *, sole: bool) -> None:
        """Have a batch that is out already, or what is left of one."""
        self.planner.add_sent(batch, sole=sole)
        self.out.append(list(batch))
        if not sole:
            self.left.update(batch)

    def send(self) -> None:
        """Take what is sent."""
        for batch in self.planner.plan(self.now):
            assert 1 <= len(set(batch)) == len(batch) <= MOST
            for place, one in enumerate(batch):
                assert one not in self.done
                assert not any(one in other for other in self.out)
                self.left.discard(one)
                for upstream in one.upstreams:
                    alone_before = len(batch) == 1 and [upstream] in self.out
                    alone_before &= upstream not in self.left
                    assert upstream in self.done or upstream in batch[:place] or alone_before
            self.out.append(list(batch))

    def can_run(self, batch: Sequence[Node]) -> bool:
        """Tell whether what it depends on has ended."""
        return all(up in self.done or up in batch for one in batch for up in one.upstreams)

    def run(self, pick: int) -> None:
        """Let one of the batches end that can run."""
        able = [batch for batch in self.out if self.can_run(batch)]
        batch = able[pick % len(able)]
        for one in batch:
            self.end(one)
        self.out.remove(batch)

    def end(self, one: Node) -> None:
        """Let one end, or come to nothing: then no time was drawn for it."""
        self.done.append(one)
        seconds = self.seconds[one]
        if seconds is None:
            self.planner.remove(one)
        else:
            self.now += seconds
            self.planner.ended(one, seconds, self.sizes[one], self.now)

    def give_back(self, pick: int) -> None:
        """Let the first of a batch turn out slow."""
        batch = self.out[pick % len(self.out)]
        back, batch[1:] = batch[1:], []
        self.planner.began(batch[0], self.now)
        self.planner.gave_back(back, self.now)

    def give_all_back(self, pick: int) -> None:
        """Let a batch give back everything, if nothing that is out too waits for it."""
        batch = self.out.pop(pick % len(self.out))
        if any(up in batch for other in self.out for one in other for up in one.upstreams):
            self.out.append(batch)
            return
        self.planner.sent_over(batch, self.now)
        self.planner.gave_back(batch, self.now)

    def kill(self, pick: int) -> None:
        """Let the worker of a batch die; the loss of one that was alone is its end."""
        able = [batch for batch in self.out if self.can_run(batch)]
        batch = able[pick % len(able)]
        self.out.remove(batch)
        for one in self.planner.lost(batch, self.now):
            self.end(one)


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Draw dispatches that depend on earlier ones."""
    made: list[Node] = []
    for number in range(draw(st.integers(1, 25))):
        ups = draw(st.lists(st.sampled_from(made), max_size=3, unique=True)) if made else []
        made.append(
            node(
                number,
                *ups,
                label=draw(st.sampled_from("ab")),
                alone=draw(st.integers(0, 5)) == 0,
                shares=draw(st.integers(0, 5)) == 0,
                priority=draw(st.integers(0, 1)),
                group=draw(st.sampled_from("xy")),
            )
        )
    return made


@st.composite
def left_work(draw: st.DrawFn) -> list[list[Node]]:
    """Draw batches that are out already."""
    sizes = draw(st.lists(st.integers(1, 6), max_size=3))
    labels = st.sampled_from("ab")
    return [
        [node(-10 * n - place, label=draw(labels), group="x") for place in range(size)]
        for n, size in enumerate(sizes, 1)
    ]


@settings(max_examples=300, deadline=None)
@given(graphs(), st.just([]) | left_work(), st.integers(1, 3), st.data())
def test_everything_is_sent_and_ends(
    many: list[Node], left: list[list[Node]], slots: int, data: st.DataObject
) -> None:
    """Each is out once at a time, never before what it depends on, and all end, whatever happens."""
    coming = list(many)
    roots = [one for batch in left for one in batch]
    for one in many if roots else ():
        if not one.upstreams and data.draw(st.booleans()):
            one.upstreams = (data.draw(st.sampled_from(roots)),)
    many = [*roots, *many]
    times = st.sampled_from((0.0, SHORT, SLOW, None))
    sizes = st.sampled_from((10, BYTES // 2, 10 * BYTES))
    cluster = Cluster(
        Planner(slots),
        {one: data.draw(times) for one in many},
        {one: data.draw(sizes) for one in many},
    )
    for batch in left:
        cluster.adopt(batch, sole=len(batch) == 1 and data.draw(st.booleans()))
    for _ in range(40):
        for _ in range(data.draw(st.integers(0, 3))):
            if coming:
                cluster.planner.add(_arriving(coming.pop(0), cluster))
        cluster.send()
        if cluster.out:
            step = data.draw(
                st.sampled_from(
                    [cluster.run] * 2 + [cluster.give_back, cluster.give_all_back, cluster.kill]
                )
            )
            step(data.draw(st.integers(0, 5)))
    while len(cluster.done) < len(many):
        while coming:
            cluster.planner.add(_arriving(coming.pop(0), cluster))
        cluster.send()
        if cluster.out:
            cluster.run(0)
        else:
            look = cluster.planner.next_look()
            assert look is not None, "nothing is out, and nothing will ever go"
            cluster.now = look
    assert sorted(one.number for one in cluster.done) == sorted(one.number for one in many)
    assert not any(one.waits for one in many)


def _arriving(one: Node, cluster: Cluster) -> Node:
    one.upstreams = tuple(up for up in one.upstreams if up not in cluster.done)
    return one
