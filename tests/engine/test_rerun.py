"""Reruns, and resumes after the code has changed: what runs again, and what is given as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from dflow import allow_failure, flow, task
from dflow.attempts import clock as attempts_clock
from dflow.cache_policies import INPUTS
from dflow.core import events as ev
from dflow.core.records import Held
from dflow.errors import DefinitionError, NotResumable, RunNotFound
from dflow.flows import Flow
from dflow.tasks import Task
from tests.engine.world import World

pytestmark = pytest.mark.usefixtures("world")

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    """Forget what ran before."""
    RAN.clear()


def ran() -> Counter[Any]:
    """Return what has run since the last time."""
    counted = Counter(RAN)
    RAN.clear()
    return counted


def noting(name: str, value: Callable[..., Any] | None = None) -> Task[..., Any]:
    """Return a task that notes that it ran, and gives a value of what it is given."""

    @task(name=name)
    def body(*given: Any) -> Any:
        RAN.append(name)
        return len(RAN) if value is None else value(*given)

    return body


load, clean, train, score = (noting(n, lambda *x: x) for n in ("load", "clean", "train", "score"))


@flow
def chain(depth: int = 3) -> Any:
    """Load, clean, train; and score something else."""
    loaded = load.submit()
    other = score.submit("other")
    trained = train.submit(clean.submit(loaded), depth)
    return trained.result(), other.result()


def test_all_runs_again(world: World) -> None:
    """Without a choice everything does, in the same run, as the next generation of everything."""
    before = chain()
    ran()
    assert chain.rerun("latest") == before
    assert ran() == {"load": 1, "clean": 1, "train": 1, "score": 1}
    (root,) = world.flow_runs()
    assert (root.state_name, root.generation) == ("Completed", 2)
    assert {run.generation for run in world.task_runs().values()} == {2}
    assert len(world.journal.catalog.list()) == 1


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("clean", {"clean", "train"}),
        ("clean-0", {"clean", "train"}),
        ("train", {"train"}),
        ("load", {"load", "clean", "train"}),
        ("score", {"score"}),
    ],
)
def test_from_a_task_on(chosen: str, expected: set[str], world: World) -> None:
    """What depends on it runs again too, directly or through others; the rest gives its results."""
    chain()
    ran()
    chain.rerun("latest", from_task=chosen)
    assert ran() == dict.fromkeys(expected, 1)
    runs = world.task_runs()
    assert {run.task_name for run in runs.values() if run.generation == 2} == expected
    reused = {run.task_name for run in runs.values() if run.reused == 2}
    assert reused == {"load", "clean", "train", "score"} - expected
    assert {run.asked for run in runs.values()} == {2}


def test_a_task_run_can_be_named_by_its_id(world: World) -> None:
    """As anywhere."""
    chain()
    ran()
    chain.rerun("latest", from_task=world.task_runs()["train-0"].id)
    assert ran() == {"train": 1}


def test_an_unknown_task(world: World) -> None:
    """The error lists those that there are; the run stays as it was."""
    chain()
    with pytest.raises(RunNotFound, match=r"no task 'tarin'.*'load', 'score', 'clean', 'train'"):
        chain.rerun("latest", from_task="tarin")
    assert world.flow_runs()[0].state_name == "Completed"
    assert world.journal.catalog.find("latest").state_name == "Completed"


def test_only_what_failed(world: World) -> None:
    """Also in a run that has completed all the same; what had taken the failure runs again with it."""
    broken = [True]
    fragile = noting("fragile", lambda: 1 // (not broken))
    after = noting("after", lambda x: x)
    told = noting("told", lambda x: isinstance(x, Exception))

    @flow
    def main() -> Any:
        failed = fragile.submit()
        after.submit(failed)
        return told.submit(allow_failure(failed)).result(), load.submit().result()

    assert main() == (True, ())
    assert ran() == {"fragile": 1, "told": 1, "load": 1}
    broken.clear()
    assert main.rerun("latest", failed=True) == (False, ())
    assert ran() == {"fragile": 1, "after": 1, "told": 1}
    assert world.states() == dict.fromkeys(
        ("fragile-0", "after-0", "told-0", "load-0"), "Completed"
    )


def test_what_a_task_calls_runs_again_with_it(world: World) -> None:
    """And what it was called by, where only that can call it; its other children are not spared either."""

    @task
    def inner(x: int) -> int:
        RAN.append(("inner", x))
        return x

    @task
    def outer(x: int) -> int:
        RAN.append(("outer", x))
        return inner(x) + inner.submit(x + 1).result()

    @flow
    def main() -> Any:
        return outer.submit(1).result() + outer(10) + inner(100)

    main()
    ran()
    main.rerun("latest", from_task="outer-0")
    assert ran() == {("outer", 1): 1, ("inner", 1): 1, ("inner", 2): 1}
    one = next(
        r.id for r in world.reader().task_runs() if r.parent_id == world.task_runs()["outer-1"].id
    )
    main.rerun("latest", from_task=one)
    assert ran() == {("outer", 10): 1, ("inner", 10): 1, ("inner", 11): 1}


def test_bodies_of_subflows_run_again() -> None:
    """Their task runs decide one by one."""

    @flow
    def inside(x: Any) -> Any:
        RAN.append("inside")
        return train(x)

    @flow
    def main() -> Any:
        return inside(load()), inside(score("s"))

    first = main()
    ran()
    assert main.rerun("latest", from_task="load") == first
    assert ran() == {
        "load": 1,
        "inside": 2,
    }  # it gave the same value, which the subflow is known by
    assert main.rerun("latest", from_task="train") == first
    assert ran() == {"train": 2, "inside": 2}


@pytest.mark.parametrize("at", ["load", "clean", "train"])
def test_an_interrupted_rerun_goes_on(at: str, world: World) -> None:
    """What was done again is not done a third time; what was still to be done again is."""
    stop = [False]

    def stopping(name: str) -> Task[..., Any]:
        def value(*given: Any) -> Any:
            if stop[0] and name == at:
                stop[0] = False
                raise KeyboardInterrupt
            return given

        return noting(name, value)

    one, two, three, four = (stopping(name) for name in ("load", "clean", "train", "score"))

    @flow
    def main() -> Any:
        return three(two(one())), four()

    main()
    ran()
    stop[0] = True
    with pytest.raises(KeyboardInterrupt):
        main.rerun("latest")
    before = ran()
    assert world.journal.catalog.find("latest").state_name == "Interrupted"
    main.resume("latest")
    assert before + ran() == {"load": 1, "clean": 1, "train": 1, "score": 1} | {at: 2}
    assert {run.generation - (run.task_name == at) for run in world.task_runs().values()} == {2}


def test_a_value_that_is_outdated_is_not_given(world: World) -> None:
    """What is to run again has no value until it has run, wherever that was kept."""
    counts = [0]

    @task
    def number() -> int:
        counts[0] += 1
        return counts[0]

    @flow
    def main() -> Any:
        future = number.submit()
        return future.result(), load.submit(future).result()

    assert main() == (1, (1,))
    assert main.rerun("latest", from_task="number") == (2, (2,))
    held = [run.held for run in world.task_runs().values()]
    assert held == [Held.JOURNAL, Held.JOURNAL]
    assert len(world.events(ev.Outdated)) == 2


def test_other_parameters_make_another_run(world: World) -> None:
    """Linked to the old one, which stays as it is; the other parameters are as recorded."""

    @flow
    def main(x: int, y: int = 5) -> Any:
        return load(x, y)

    assert main(1) == (1, 5)
    old = world.journal.catalog.find("latest")
    assert main.rerun("latest", y=6) == (1, 6)
    new = world.journal.catalog.find("latest")
    assert new.id != old.id
    assert new.details["rerun_of"] == old.id
    assert main.rerun(old.id, new=True) == (1, 5)
    assert len(world.journal.catalog.list()) == 3


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"from_task": "load", "failed": True}, "Give one of them"),
        ({"from_task": "load", "depth": 4}, r"Other parameters \('depth'\)"),
        ({"failed": True, "new": True}, "new=True"),
        ({"wrong": 1}, "wrong"),
    ],
)
def test_what_contradicts_itself(given: dict[str, Any], match: str, world: World) -> None:
    """It is refused before anything happens."""
    chain()
    with pytest.raises(DefinitionError, match=match):
        chain.rerun("latest", **given)
    assert len(world.journal.catalog.list()) == 1


# Code that has changed -------------------------------------------------------------------------------


def interrupted_flow(*tasks: Task[..., Any]) -> Flow[..., Any]:
    """Return a flow that calls tasks, each with what the one before gave, and is interrupted at the end."""

    @flow(name="main")
    def main() -> Any:
        value: Any = ()
        for each in tasks:
            value = each.submit(value)
        if "interrupted" not in STOPPED:
            STOPPED.append("interrupted")
            value.result()
            raise KeyboardInterrupt
        return value.result()

    return main


STOPPED: list[str] = []


@pytest.fixture(autouse=True)
def stop_again() -> None:
    """Let the next flow be interrupted."""
    STOPPED.clear()


def version(text: str, **options: Any) -> Task[..., Any]:
    """Return the task 'middle' as a file with this text would define it."""
    scope: dict[str, Any] = {"__name__": "flows", "RAN": RAN}
    exec(text, scope)
    return task(scope["middle"], **options)


OLD = "def middle(x):\n    RAN.append('old')\n    return ('old', x)"
old, mended = version(OLD), version(OLD.replace("old", "new"), retries=3)


def test_changed_code_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Its results are given, with one warning that says how to have others."""
    with pytest.raises(KeyboardInterrupt):
        interrupted_flow(load, old, old, train)()
    ran()
    changed = interrupted_flow(load, mended, mended, train)
    assert changed.resume("latest") == (("old", ("old", ((),))),)
    assert not ran()
    told = [r.message for r in caplog.records if "The code of task" in r.message]
    assert len(told) == 1
    assert "'middle'" in told[0]
    assert "--rerun-changed" in told[0]
    assert f"dflow rerun {world.flow_runs()[0].name} --from middle" in told[0]
    assert [event.changed for event in world.events(ev.Reused)] == [False, True, True, False]


def test_changed_code_runs_again_if_asked(world: World) -> None:
    """With what depends on it, and nothing else; from then on it is the code that counts."""
    with pytest.raises(KeyboardInterrupt):
        interrupted_flow(load, old, train)()
    ran()
    STOPPED.clear()
    changed = interrupted_flow(load, mended, train)
    with pytest.raises(KeyboardInterrupt):
        changed.resume("latest", rerun_changed=True)
    assert ran() == {"new": 1, "train": 1}
    assert changed.resume("latest", rerun_changed=True) == (("new", ((),)),)
    assert not ran()
    assert [run.generation for run in world.task_runs().values()] == [1, 2, 2]


def test_what_failed_is_mended_without_further_words(caplog: pytest.LogCaptureFixture) -> None:
    """Only code of what has completed is compared."""
    main = interrupted_flow(load, version(OLD.replace("'old'", "1 // 0")))
    STOPPED.append("interrupted")
    with pytest.raises(ZeroDivisionError):
        main()
    ran()
    assert interrupted_flow(load, mended).resume("latest") == ("new", ((),))
    assert ran() == {"new": 1}
    assert "The code of task" not in caplog.text


def test_what_is_not_known_has_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    """Journals of before hold no digests."""
    old._source = ""  # as if it had not been known
    with pytest.raises(KeyboardInterrupt):
        interrupted_flow(old)()
    del old._source
    ran()
    assert interrupted_flow(mended).resume("latest", rerun_changed=True) == ("old", ())
    assert not ran()
    assert "The code of task" not in caplog.text


def test_changed_code_in_a_subflow_that_has_completed() -> None:
    """Its body runs again to find it, if asked."""

    def outer(middle: Task[..., Any]) -> Flow[..., Any]:
        @flow(name="inside")
        def inside() -> Any:
            return middle(1)

        @flow(name="main")
        def main() -> Any:
            value = inside(), load()
            if not STOPPED:
                STOPPED.append("interrupted")
                raise KeyboardInterrupt
            return value

        return main

    with pytest.raises(KeyboardInterrupt):
        outer(old)()
    ran()
    assert outer(mended).resume("latest", rerun_changed=True) == (("new", 1), ())
    assert ran() == {"new": 1}


# What nobody asks for again --------------------------------------------------------------------------


def test_finished_work_that_is_left_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """One line says how much, and which; what a reused task had called is not left."""

    @task
    def parent() -> Any:
        return load()

    @flow
    def main() -> Any:
        parent()
        if STOPPED:
            return score("another")
        STOPPED.append("interrupted")
        score("one"), score("two")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        main()
    main.resume("latest")
    assert (
        "2 finished task runs of the earlier run were not asked for again: score-0, score-1"
        in caplog.text
    )
    assert {n: run.asked for n, run in world.task_runs().items()} == {
        "parent-0": 2, "load-0": 1, "score-0": 2, "score-1": 1,
    }  # fmt: skip


def test_a_completed_run_is_told_how_to_run_again() -> None:
    """It is not resumed."""
    chain()
    with pytest.raises(NotResumable, match=r"has completed.*dflow rerun "):
        chain.resume("latest")


DRAWN: list[str] = []


@task(cache_policy=INPUTS)
def draw(name: str) -> int:
    """Give another number each time."""
    DRAWN.append(name)
    return len(DRAWN)


def test_a_rerun_does_not_take_its_own_results_from_the_cache(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be done again is done, and is in the cache from then on."""
    monkeypatch.setattr(attempts_clock, "now", world.clock.now)
    DRAWN.clear()

    @flow
    def main() -> Any:
        return draw("a") + draw.submit("b").result()

    assert main() == 1 + 2
    assert main.rerun("latest", from_task="draw") == 3 + 4
    assert main.rerun("latest", new=True) == 3 + 4
    assert DRAWN == ["a", "b"] * 2
    assert set(world.states().values()) == {"Cached"}
