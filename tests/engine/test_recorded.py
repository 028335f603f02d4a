"""What is recorded of a run so that it can be run again: parameters, options, runner; and what cannot be."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dflow
from dflow import flow, task
from dflow.engine import recorded, taking_up
from dflow.errors import NotResumable
from dflow.flows import Flow
from task_runners import DaskTaskRunner, InlineTaskRunner, ThreadPoolTaskRunner
from tests.engine.world import World

pytestmark = pytest.mark.usefixtures("world")

GO = threading.Event()


@pytest.fixture(autouse=True)
def stop_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Let each flow be interrupted once, and warn of each anew."""
    monkeypatch.setenv("DFLOW_HOME", str(tmp_path))
    taking_up._warned.clear()
    GO.clear()
    yield
    GO.clear()


def stop() -> None:
    """Interrupt a flow the first time."""
    if not GO.is_set():
        GO.set()
        raise KeyboardInterrupt


@task
def step(x: Any) -> Any:
    """Give what it gets."""
    return x


@dataclass
class Trainer:
    """An object with a flow."""

    depth: Any

    @flow
    def train(self, x: int) -> Any:
        """Use what the object has."""
        stop()
        return self.depth, step(x)

    @classmethod
    @flow
    def make(cls, x: int) -> Any:
        """Use the class."""
        stop()
        return cls.__name__, x


@flow
def plain(x: int, y: Any = 5, *, z: str = "z") -> Any:
    """Take parameters with defaults."""
    stop()
    return x, y, z


@flow
def several(*many: int, **named: Any) -> Any:
    """Take any parameters."""
    stop()
    return many, named


@flow(validate_parameters=True)
def checked(x: int) -> Any:
    """Take a number."""
    stop()
    return x


@flow
def counting(x: int) -> Iterator[int]:
    """Give item by item."""
    yield x
    stop()
    yield step(x + 1)


@flow
async def waiting(x: int) -> int:
    """Be awaited."""
    stop()
    return x


def text(value: Any) -> Any:
    """Return a text, of which type checkers know nothing."""
    return value


def interrupted(call: Callable[[], Any]) -> None:
    """Call a flow that is interrupted."""
    with pytest.raises(KeyboardInterrupt):
        call()


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (lambda: plain(1), (1, 5, "z")),
        (lambda: plain(1, [2, {"a": 3}], z="y"), (1, [2, {"a": 3}], "y")),
        (lambda: plain(1, Trainer(4)), (1, Trainer(4), "z")),
        (lambda: several(1, 2, a=3), ((1, 2), {"a": 3})),
        (lambda: checked(text("7")), 7),
        (lambda: Trainer(3).train(1), (3, 1)),
        (lambda: Trainer.make(1), ("Trainer", 1)),
        (lambda: list(counting(1)), [1, 2]),
        (lambda: asyncio.run(waiting(4)), 4),
    ],
)
def test_parameters_are_recorded(call: Callable[[], Any], value: Any) -> None:
    """Any flow of a module goes on by the name of its run alone, whatever it takes and gives."""
    interrupted(call)
    assert dflow.resume("latest") == value


def test_defaults_are_those_of_the_beginning(world: World) -> None:
    """What was left out is recorded too: a default that has changed meanwhile is no other parameter."""

    def made(default: int) -> Flow[..., Any]:
        @flow(name="main")
        def main(x: int, lr: int = default) -> Any:
            stop()
            return x, lr

        return main

    interrupted(lambda: made(1)(0))
    assert made(2).resume("latest") == (0, 1)
    assert world.journal.catalog.find("latest").details["parameters"] == {"x": "0", "lr": "1"}


def test_large_parameters_are_in_a_file(world: World) -> None:
    """Beside the journal, and not in the list of runs; a lost one is told."""
    data = np.arange(100_000)
    interrupted(lambda: plain(1, data))
    entry = world.journal.catalog.find("latest")
    assert "pickled_parameters" not in entry.details
    stored = entry.details["stored_parameters"]
    assert stored["size"] >= data.nbytes
    assert dflow.runs.sizes(dflow.runs.find("latest"))["parameters"] == stored["size"]
    _, found, _ = plain.resume("latest")
    assert np.array_equal(found, data)
    GO.clear()
    interrupted(lambda: plain(1, data))
    place = world.journal.catalog.find("latest").details["stored_parameters"]
    (world.process.settings.home / "parameters" / place["path"]).unlink()
    with pytest.raises(NotResumable, match=r"cannot be read.*not in the result store"):
        plain.resume("latest")
    dflow.runs.delete(entry.id)
    assert list((world.process.settings.home / "parameters").iterdir()) == []


def test_what_cannot_be_recorded_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning names the parameter and its type; at the end nobody is told to resume it."""
    for _ in range(2):
        GO.clear()
        interrupted(lambda: plain(1, threading.Lock()))
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "cannot be resumed" in told[0]
    assert "'y' is a '_thread.lock'" in told[0]
    assert [line.partition("|")[2] for line in told[1:]] == [
        " It cannot be resumed: run it again."
    ] * 2
    with pytest.raises(NotResumable, match=r"'y' is a '_thread\.lock'"):
        plain.resume("latest")


def test_an_object_that_cannot_be_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """Its flow is resumed with the object at hand, and by nothing else."""
    trainer = Trainer(threading.Lock())
    interrupted(lambda: trainer.train(1))
    assert 'the_object.train.resume("' in caplog.text
    with pytest.raises(NotResumable, match=r"'self' is a '.*\.Trainer'"):
        dflow.resume("latest")
    assert trainer.train.resume("latest") == (trainer.depth, 1)


def test_a_default_that_cannot_be_recorded_is_no_problem(caplog: pytest.LogCaptureFixture) -> None:
    """It is there again when the flow is."""
    lock = threading.Lock()

    @flow
    def main(x: int, guard: Any = lock) -> Any:
        stop()
        return x, guard is lock

    interrupted(lambda: main(1))
    assert "cannot be recorded" not in caplog.text
    assert main.resume("latest") == (1, True)


# Options and runners ---------------------------------------------------------------------------------

other = plain.with_options(name="other", retries=2)


def test_options_of_a_call_are_recorded(world: World) -> None:
    """A run that began with others goes on with them, by its name; so does one of a name of its own."""
    interrupted(lambda: plain.with_options(name="special", retries=4, log_prints=True)(1))
    entry = world.journal.catalog.find("latest")
    assert set(entry.details["pickled_options"]) == {"name", "retries", "log_prints"}
    found = dflow.runs.flow_of(dflow.runs.find("latest"))
    assert (found.name, found._options.retries, found._options.log_prints) == ("special", 4, True)
    assert dflow.resume("latest") == (1, 5, "z")
    GO.clear()
    interrupted(lambda: other(1))
    entry = world.journal.catalog.find("latest")
    assert entry.details["entrypoint"]["qualname"] == "other"
    assert "pickled_options" not in entry.details
    assert dflow.resume("latest") == (1, 5, "z")


def test_a_flow_knows_its_runs_by_its_function() -> None:
    """One that began under another name is no other flow's; it goes on with the options at hand."""
    interrupted(lambda: plain.with_options(name="special")(1))
    assert plain.resume("latest") == (1, 5, "z")


DASK = DaskTaskRunner(cluster_kwargs={"n_workers": 3})
POOL = ThreadPoolTaskRunner(max_workers=3)


@pytest.mark.parametrize(
    ("began", "own", "chosen"),
    [
        (DASK, None, DASK),
        (POOL, None, POOL),
        (InlineTaskRunner, None, InlineTaskRunner),
        ("threads", None, "threads"),
        (None, None, "inline"),
        (DASK, POOL, POOL),
        ("threads", POOL, POOL),
    ],
)
def test_it_goes_on_where_it_began(began: Any, own: Any, chosen: Any, world: World) -> None:
    """On an equal runner, unless the flow at hand names one itself."""
    main = plain.with_options(name="main", task_runner=began)
    interrupted(lambda: main(1))
    details = world.journal.catalog.find("latest").details
    assert recorded.ChosenRunner(own, details, set_now=False).choose() == chosen
    by_name = dflow.runs.flow_of(dflow.runs.find("latest"))
    assert by_name._options.task_runner == began


def test_a_runner_that_is_set_now_counts_where_none_was_named(world: World) -> None:
    """A run on the runner of the settings goes on with that of today's, if somebody has set one."""
    interrupted(lambda: plain(1))
    details = world.journal.catalog.find("latest").details
    assert recorded.ChosenRunner(None, details, set_now=True).choose() is None
    assert details["runner"] == {"name": "inline", "by_default": True}


def test_runners_are_described(world: World) -> None:
    """For those who look at a run."""
    interrupted(lambda: plain.with_options(task_runner=DASK)(1))
    details = world.journal.catalog.find("latest").details
    assert details["runner"]["kind"] == "dask"
    assert details["runner"]["n_workers"] == 3


# Where it is found again -------------------------------------------------------------------------------


def test_a_flow_without_a_name_is_told_at_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """With the call that resumes it, literally; in a notebook nobody needs to hear it at every run."""

    @flow
    def inside(x: int) -> Any:
        stop()
        return x

    interrupted(lambda: inside(3))
    name = world.flow_runs()[0].name
    call = f'inside.resume("{name}")'
    first, *_, last = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert "`dflow resume` will not find this flow: it was defined inside of a function" in first
    assert first.endswith(f"Go on with: {call}")
    assert last == f"INTERRUPTED {name} | Go on with: {call}"
    assert eval(call) == 3


def test_where_somebody_types_nobody_is_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A notebook has the flow in it; how to go on is said when it is interrupted."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    @flow
    def inside() -> None:
        stop()

    interrupted(inside)
    (told,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert "Go on with: inside.resume(" in told


lambdas = [flow(lambda: 1)]
named = flow(lambda: step(stop()))  # type: ignore[func-returns-value]  # None, in the end


def test_a_lambda_is_found_by_the_name_that_it_was_given(world: World) -> None:
    """Its function has none; one that is only in a list has none either."""
    interrupted(named)
    assert dflow.resume("latest") is None
    assert world.journal.catalog.find("latest").details["entrypoint"]["qualname"] == "named"
    lambdas[0]()
    place = world.journal.catalog.find("latest").details["entrypoint"]
    assert place["nameless"].endswith("has no name for it")
