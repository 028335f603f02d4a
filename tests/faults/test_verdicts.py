"""The judge of the campaigns: each broken promise is noticed, by hand here and in drivers that are broken."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dflow.core.replay import Table
from tests.faults import oracle
from tests.faults.drivers import text_of
from tests.faults.flows import CASES
from tests.faults.lanes import ROOT, Fate, Forks, Place
from tests.faults.rounds import Round, Tally, fates
from tests.faults.verdicts import Broken, Snapshot, examine, judge, snapshot

FLOW = "retries"
VALUE = CASES[FLOW].value


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Return what a run leaves that nothing has disturbed."""
    place = Place(tmp_path_factory.mktemp("faults") / "good")
    order = text_of(place.order(FLOW, "inline"))
    subprocess.run([sys.executable, "-m", "tests.faults.drivers", order], cwd=ROOT, check=True)
    found = snapshot(place.home, oracle.lines(place.oracle), place.folder / "copy")
    assert found is not None
    return found


def work(good: Snapshot) -> Counter[str]:
    """Return what was done."""
    return oracle.identities(list(good.noted))


def promises(broken: Broken) -> set[str]:
    """Return the promises that were broken."""
    return {sentence.split(":")[0] for sentence in broken.all()}


def test_a_good_run_is_sound(good: Snapshot) -> None:
    """Nothing is found where nothing is wrong, also when it is compared with what it was halfway."""
    half = replace(good, events=good.events[: len(good.events) // 2], table=Table(), values={})
    assert promises(examine(good, [half, good])) == set()
    assert promises(judge(good, VALUE, work(good))) == set()


def some_start(good: Snapshot) -> dict[str, object]:
    """Return the line of a body that began."""
    return next(dict(line) for line in good.noted if line["what"] == "start")


def noting(*more: Callable[[Snapshot], dict[str, object]]) -> Callable[[Snapshot], Snapshot]:
    """Return what adds lines to the oracle."""
    return lambda good: replace(good, noted=[*good.noted, *(line(good) for line in more)])


TAMPERED: dict[str, tuple[str, Callable[[Snapshot], Snapshot]]] = {
    "shown and not recorded": (
        "lost",
        noting(lambda good: {"what": "shown", "run": "nobody", "by": "x"}),
    ),
    "another value was shown": (
        "lost",
        noting(lambda good: {"what": "shown", "run": some_start(good)["run"], "by": "other"}),
    ),
    "a state was shown that never was": (
        "lost",
        noting(lambda good: {"what": "seen", "run": some_start(good)["run"], "state": "Crashed"}),
    ),
    "events of before are gone": ("lost", lambda good: replace(good, events=good.events[:-3])),
    "a kept value is another": (
        "lost",
        lambda good: replace(good, values={**good.values, str(some_start(good)["run"]): b""}),
    ),
    "another value is shown than before": (
        "lost",
        lambda good: replace(
            good,
            noted=[*good.noted, *(dict(n, by="x") for n in good.noted if n["what"] == "shown")],
        ),
    ),
    "ran again": ("ran_again", noting(lambda good: some_start(good) | {"pid": -1})),
    "executed twice": ("doubled", noting(some_start)),
    "recorded and never done": (
        "doubled",
        lambda good: replace(good, noted=[n for n in good.noted if n["what"] != "end"]),
    ),
    "records that are not of the history": (
        "invariants",
        lambda good: replace(good, table=Table()),
    ),
    "a dead driver that lives": ("invariants", lambda good: replace(good, alive=True)),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_is_broken_is_noticed(good: Snapshot, what: str) -> None:
    """Each promise, broken by hand in what a good run has left."""
    promise, tamper = TAMPERED[what]
    assert promise in promises(examine(_readable(tamper(good)), [good]))


def _readable(now: Snapshot) -> Snapshot:
    """Leave out the values that cannot be read; that they changed is noticed by their bytes."""
    shown = [n for n in now.noted if n["what"] != "shown" or now.values.get(str(n["run"])) != b""]
    return replace(now, noted=shown)


def test_a_wrong_end_is_noticed(good: Snapshot) -> None:
    """Another value than expected, a run that has not ended, and no run at all."""
    assert promises(judge(good, 0, work(good))) == {"wrong"}
    assert promises(judge(replace(good, table=Table()), VALUE, work(good))) == {"unfinished"}
    assert promises(judge(None, VALUE, work(good))) == {"unfinished"}


@pytest.fixture
def played(tmp_path: Path) -> Callable[[str], Tally]:
    """Return what plays a round with drivers that break a promise, each killed at another transaction."""

    def play(sabotage: str) -> Tally:
        forks = Forks()
        try:
            one = Round(
                forks, Place(tmp_path / "round"), "calls", "inline", "a round", Counter(), sabotage
            )
            return one.play(fates([Fate(crash_at=number) for number in (12, 5, 6, 7)]))
        finally:
            forks.close()

    return play


def test_a_driver_that_shows_before_it_writes_is_found_out(
    played: Callable[[str], Tally],
) -> None:
    """What was shown is lost when it is killed in front of the transaction."""
    tally = played("shows before it writes")
    assert tally.broken.lost


def test_a_driver_that_does_finished_work_again_is_found_out(
    played: Callable[[str], Tally],
) -> None:
    """Work that was done is not found again, and is done under other names."""
    tally = played("names task runs by luck")
    assert tally.broken.ran_again
