"""The graph of task runs: who may go, what a failure takes with it, and that size does not matter."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.core.graph import Graph, Progress
from dflow.core.records import Need, Upstream

BLOCKED, AWAY, DONE, FAILED = Progress
DATA, WAIT, ALLOW = Need


def graph_of(**edges: str | list[Upstream]) -> Graph:
    """Return a graph in which each name has these upstreams (a text names some whose value it takes)."""
    graph = Graph()
    for name, upstreams in edges.items():
        graph.add(name, tuple(u if isinstance(u, Upstream) else Upstream(u) for u in upstreams))
    return graph


def fail(graph: Graph, name: str, standing: str = "") -> list[tuple[str, str]]:
    """Let a task run fail, and with it all that it takes, but for those that stand."""
    graph.mark(name, FAILED)
    found = []
    for dependent, cause in graph.doomed(name):
        found.append((dependent, cause))
        if dependent not in standing:
            graph.mark(dependent, FAILED)
    return found


def test_a_value_is_passed_on_by_the_runner() -> None:
    """Who takes a value may go as soon as its upstream is away; that it is done then frees nobody anew."""
    graph = graph_of(a="", b="a")
    assert graph.may_go("a")
    assert not graph.may_go("b")
    assert graph.mark("a", AWAY) == ["b"]
    assert not graph.may_go("a")
    assert graph.mark("a", DONE) == []


def test_a_gate_opens_at_the_end() -> None:
    """Who waits for a task run, or allows it to fail, goes when it is over and not before."""
    graph = graph_of(a="", b=[Upstream("a", WAIT)], c=[Upstream("a", ALLOW)])
    assert graph.mark("a", AWAY) == []
    assert graph.mark("a", DONE) == ["b", "c"]
    graph = graph_of(a="", b=[Upstream("a", WAIT)], c=[Upstream("a", ALLOW)])
    assert graph.mark("a", FAILED) == ["c"]
    assert [*graph.doomed("a")] == [("b", "a")]


def test_a_diamond_goes_once() -> None:
    """What depends on two is freed by the second, once."""
    graph = graph_of(a="", b="a", c="a", d="bc")
    assert graph.mark("a", DONE) == ["b", "c"]
    assert graph.mark("b", DONE) == []
    assert graph.mark("c", DONE) == ["d"]
    assert [*graph.dependents("a")] == ["b", "c"]


def test_two_needs_of_one_upstream() -> None:
    """A task run that takes a value and allows its failure is held by both needs, and freed once."""
    both = [Upstream("a"), Upstream("a", ALLOW), Upstream("a")]
    graph = graph_of(a="", b=both)
    assert graph.upstreams("b") == (Upstream("a"), Upstream("a", ALLOW))
    graph.mark("a", FAILED)
    assert graph.mark("a", AWAY) == []
    assert graph.mark("a", DONE) == ["b"]


def test_a_retry_holds_its_dependents_again() -> None:
    """What is taken back from the runner holds back whoever has not followed it yet."""
    graph = graph_of(a="", b="a")
    graph.mark("a", AWAY)
    graph.mark("a", BLOCKED)
    assert not graph.may_go("b")
    assert graph.mark("a", AWAY) == ["b"]


def test_a_failure_names_its_nearest_cause() -> None:
    """Each one that fails is named once, the nearest first, with the upstream through which it fails."""
    graph = graph_of(a="", b="a", c="b", d="bc", e=[Upstream("d", ALLOW)])
    assert fail(graph, "a") == [("b", "a"), ("c", "b"), ("d", "b")]
    assert graph.failed_upstream("d") == "b"
    assert graph.failed_upstream("e") is None
    assert graph.may_go("e")


def test_a_failure_stops_at_what_stands() -> None:
    """What hangs on a task run that does not fail with its upstream is not taken along."""
    graph = graph_of(a="", b="a", c="b")
    graph.mark("b", DONE)
    assert fail(graph, "a", standing="b") == [("b", "a")]
    assert graph.may_go("c")


def test_a_failure_is_told_once() -> None:
    """A second failure passes over what has failed already."""
    graph = graph_of(a="", b="", c="ab", d="c")
    fail(graph, "a")
    assert fail(graph, "b") == []


def test_asked_for_again_with_other_upstreams() -> None:
    """A task run that is added again waits for its new upstreams, holds what hangs on it, forgets the old."""
    graph = graph_of(a="", b="", c="a", d="c")
    graph.mark("a", DONE)
    graph.mark("c", DONE)
    assert graph.may_go("d")
    graph.add("c", (Upstream("b"),))
    assert graph.progress("c") is BLOCKED
    assert not graph.may_go("c")
    assert not graph.may_go("d")
    assert [*graph.dependents("a")] == []
    assert graph.mark("b", DONE) == ["c"]
    assert graph.mark("c", DONE) == ["d"]
    assert "c" in graph
    assert "x" not in graph


def test_a_long_chain() -> None:
    """A chain of 10,000 goes link by link, and fails as a whole, without recursion."""
    count = 10_000
    graph = Graph()
    for i in range(count):
        graph.add(f"t{i}", (Upstream(f"t{i - 1}"),) if i else ())
    for i in range(count - 1):
        assert graph.mark(f"t{i}", AWAY) == [f"t{i + 1}"]
    taken = fail(graph, "t0")
    assert len(taken) == count - 1
    assert taken[-1] == (f"t{count - 1}", f"t{count - 2}")


def test_a_wide_fan_in() -> None:
    """What takes 50,000 values is freed by the last of them, and by that one only."""
    count = 50_000
    graph = Graph()
    for i in range(count):
        graph.add(f"t{i}", ())
    graph.add("all", tuple(Upstream(f"t{i}") for i in range(count)))
    assert [graph.mark(f"t{i}", DONE) for i in range(count)] == [[]] * (count - 1) + [["all"]]
    for _ in range(1000):  # one of them comes and goes: that must not cost a look at all the others
        graph.mark("t0", BLOCKED)
        assert graph.mark("t0", AWAY) == ["all"]


def test_a_wide_fan_out() -> None:
    """One task run frees 50,000 at once, and takes as many with it."""
    count = 50_000
    graph = Graph()
    graph.add("one", ())
    for i in range(count):
        graph.add(f"t{i}", (Upstream("one"),))
    assert len(graph.mark("one", AWAY)) == count
    assert len(fail(graph, "one")) == count


class Naive:
    """The same graph, worked out anew for every question."""

    def __init__(self) -> None:
        self.progress: dict[int, Progress] = {}
        self.upstreams: dict[int, list[tuple[int, Need]]] = {}

    def may_go(self, node: int) -> bool:
        """Tell whether nothing stands in the way."""
        holds = {DATA: (BLOCKED, FAILED), WAIT: (BLOCKED, AWAY, FAILED), ALLOW: (BLOCKED, AWAY)}
        met = all(self.progress[u] not in holds[need] for u, need in self.upstreams[node])
        return self.progress[node] is BLOCKED and met

    def ready(self) -> set[int]:
        """Return all that may go."""
        return {node for node in self.progress if self.may_go(node)}

    def failed_upstream(self, node: int) -> int | None:
        """Return the first upstream that fails a node."""
        edges = self.upstreams[node]
        return next((u for u, n in edges if n is not ALLOW and self.progress[u] is FAILED), None)

    def doomed(self, node: int) -> set[int]:
        """Return all that a failure reaches, through what is neither done nor failed."""
        found: set[int] = set()
        for candidate in self.progress:  # upstreams come before what depends on them
            if self.progress[candidate] in (BLOCKED, AWAY):
                edges = self.upstreams[candidate]
                if any(n is not ALLOW and (u == node or u in found) for u, n in edges):
                    found.add(candidate)
        return found


node = st.integers(0, 7)
edges = st.lists(st.tuples(node, st.sampled_from(Need)), max_size=5)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("add"), node, edges),
        st.tuples(st.just("mark"), node, st.sampled_from(Progress)),
        st.tuples(st.just("fail"), node, st.none()),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(edges, min_size=1, max_size=8), moves)
def test_it_agrees_with_the_naive_graph(first, later) -> None:
    """After any additions, marks and failures the counters say what a look at everything says."""
    graph, naive = Graph(), Naive()

    def add(number, picks) -> None:
        below = [(u, need) for u, need in dict.fromkeys(picks) if u < number]
        graph.add(str(number), tuple(Upstream(str(u), need) for u, need in below))
        naive.progress[number], naive.upstreams[number] = BLOCKED, below

    def mark(number, progress) -> set[int]:
        naive.progress[number] = progress
        freed = graph.mark(str(number), progress)
        assert len(freed) == len(set(freed))
        return {int(name) for name in freed}

    for number, picks in enumerate(first):
        add(number, picks)
    for kind, pick, what in later:
        number = pick % len(first)
        before = naive.ready()
        if kind == "add":
            add(number, what)
        elif kind == "mark":
            assert mark(number, what) == naive.ready() - before - {number}
        else:
            mark(number, FAILED)
            expected = naive.doomed(number)
            found = set()
            for name, cause in graph.doomed(str(number)):
                assert graph.progress(cause) is FAILED
                if graph.progress(name) is not DONE:
                    found.add(int(name))
                    mark(int(name), FAILED)
            assert found == expected
        assert {n for n in naive.progress if graph.may_go(str(n))} == naive.ready()
        for n in naive.progress:
            failed = graph.failed_upstream(str(n))
            assert (None if failed is None else int(failed)) == naive.failed_upstream(n)
