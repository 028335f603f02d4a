"""The catalog: which runs there are, and who drives each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from dflow.errors import RunHeld, RunNotFound, RunTakenOver
from dflow.ports import Journal
from tests.journal.world import RUN, Driver, World, entry, flow_created, holder


def test_an_empty_catalog_lists_nothing(journal: Journal) -> None:
    """A catalog to which nothing was added can be asked."""
    assert journal.catalog.list() == []
    for text in ("latest", "nobody", ""):
        with pytest.raises(RunNotFound):
            journal.catalog.find(text)
    with pytest.raises(RunNotFound, match="nobody"):
        journal.catalog.claim("nobody", holder(), 1.0)
    with pytest.raises(RunTakenOver):
        journal.catalog.heartbeat("nobody", 1, 1.0)
    journal.catalog.release("nobody", 1)


def test_runs_come_back_as_they_were_added(open_journal: Callable[[], Journal]) -> None:
    """All that is known of a run is kept, for every process."""
    added = entry(tags=["x"], parameters={"lr": 0.5, "odd": "é\udce9", "none": None})
    open_journal().catalog.create(added)
    assert open_journal().catalog.list() == [added]
    with pytest.raises(ValueError, match=RUN):
        open_journal().catalog.create(added)


def test_the_newest_come_first(journal: Journal) -> None:
    """Runs are listed by age, and those of one moment by id."""
    for run_id, at in (("b", 2.0), ("a", 1.0), ("c", 2.0)):
        journal.catalog.create(entry(run_id, at=at))
    assert [run.id for run in journal.catalog.list()] == ["c", "b", "a"]
    assert [run.id for run in journal.catalog.list(limit=2)] == ["c", "b"]
    assert journal.catalog.find("latest").id == "c"


def test_runs_are_found_by_what_people_type(journal: Journal) -> None:
    """An id, its unique start or a name finds a run; what fits none or several is told."""
    for run_id, name in (("2401-aa", "wise-owl"), ("2401-ab", "sly-fox"), ("2402%", "sly-fox")):
        journal.catalog.create(entry(run_id, name))
    find = journal.catalog.find
    assert find("2401-aa").id == find("wise-owl").id == "2401-aa"
    assert find("2402").id == find("2402%").id == "2402%"
    with pytest.raises(RunNotFound, match=r"2401-a[ab].*2401-a[ab]"):
        find("2401")
    with pytest.raises(RunNotFound, match=r"2402%.*2401-ab|2401-ab.*2402%"):
        find("sly-fox")
    for text in ("%", "_", "nobody", "", "2401-AA", "\udce9"):
        with pytest.raises(RunNotFound):
            find(text)


def test_an_id_goes_before_a_name_that_looks_like_it(journal: Journal) -> None:
    """A whole id names its run, whatever others are called."""
    journal.catalog.create(entry("first", "second"))
    journal.catalog.create(entry("second", "first"))
    assert journal.catalog.find("first").id == "first"


def test_each_claim_is_a_new_epoch(journal: Journal, world: World) -> None:
    """A claim takes a run that nobody drives, notes who has it, and counts up."""
    journal.catalog.create(entry())
    assert journal.catalog.claim(RUN, holder(1), 5.0) == 1
    kept = journal.catalog.find(RUN)
    assert (kept.epoch, kept.holder, kept.heartbeat) == (1, holder(1), 5.0)
    journal.catalog.release(RUN, 1)
    assert journal.catalog.find(RUN).holder is None
    assert journal.catalog.claim(RUN, holder(2), 6.0) == 2
    world.dead.add(2)
    assert journal.catalog.claim(RUN, holder(3), 7.0) == 3


def test_a_run_is_not_taken_from_the_living(journal: Journal) -> None:
    """A claim on a run whose driver lives is refused with its process and host."""
    journal.catalog.create(entry())
    journal.catalog.claim(RUN, holder(41), 5.0)
    with pytest.raises(RunHeld, match="41") as refused:
        journal.catalog.claim(RUN, holder(42), 1e9)
    assert (refused.value.pid, refused.value.host) == (41, "here")
    assert journal.catalog.find(RUN).holder == holder(41)


def test_a_driver_elsewhere_lives_by_its_heartbeat(journal: Journal) -> None:
    """On another host a driver is dead when nothing was heard of it for more than a minute."""
    journal.catalog.create(entry())
    epoch = journal.catalog.claim(RUN, holder(1, "elsewhere"), 100.0)
    journal.catalog.heartbeat(RUN, epoch, 200.0)
    with pytest.raises(RunHeld, match="elsewhere"):
        journal.catalog.claim(RUN, holder(2), 260.0)
    assert journal.catalog.is_alive(journal.catalog.find(RUN), 260.0)
    assert not journal.catalog.is_alive(journal.catalog.find(RUN), 260.5)
    assert journal.catalog.claim(RUN, holder(2), 260.5) == 2


def test_who_lives_can_be_asked(journal: Journal, world: World) -> None:
    """A run lives while a process that lives holds it."""
    journal.catalog.create(entry())
    assert not journal.catalog.is_alive(journal.catalog.find(RUN), 1.0)
    epoch = journal.catalog.claim(RUN, holder(7), 1.0)
    assert journal.catalog.is_alive(journal.catalog.find(RUN), 1e9)
    world.dead.add(7)
    assert not journal.catalog.is_alive(journal.catalog.find(RUN), 1.0)
    world.dead.clear()
    journal.catalog.release(RUN, epoch)
    assert not journal.catalog.is_alive(journal.catalog.find(RUN), 1.0)


def test_an_earlier_epoch_changes_nothing(journal: Journal, world: World) -> None:
    """A driver that was replaced can neither update nor release the run."""
    journal.catalog.create(entry())
    journal.catalog.claim(RUN, holder(1), 1.0)
    world.dead.add(1)
    journal.catalog.claim(RUN, holder(2), 2.0)
    before = journal.catalog.find(RUN)
    with pytest.raises(RunTakenOver, match=RUN):
        journal.catalog.update(RUN, 1, "Completed", "", 3.0)
    with pytest.raises(RunTakenOver, match=RUN):
        journal.catalog.heartbeat(RUN, 1, 3.0)
    journal.catalog.release(RUN, 1)
    assert journal.catalog.find(RUN) == before


def test_the_state_of_a_run_is_shown(journal: Journal) -> None:
    """An update sets state, message and time, and nothing else."""
    journal.catalog.create(entry(tags=["x"]))
    epoch = journal.catalog.claim(RUN, holder(), 1.0)
    before = journal.catalog.find(RUN)
    journal.catalog.update(RUN, epoch, "Failed", "ValueError: no", 3.0)
    changed = replace(before, state_name="Failed", message="ValueError: no", changed_at=3.0)
    assert journal.catalog.find(RUN) == changed


def test_the_end_of_a_run_is_shown_and_lets_go_of_it(journal: Journal) -> None:
    """State and driver change together; who does not drive the run any more changes neither."""
    journal.catalog.create(entry())
    epoch = journal.catalog.claim(RUN, holder(1), 1.0)
    before = journal.catalog.find(RUN)
    with pytest.raises(RunTakenOver):
        journal.catalog.end(RUN, epoch + 1, "Failed", "no", 3.0)
    assert journal.catalog.find(RUN) == before
    journal.catalog.end(RUN, epoch, "Completed", "", 3.0)
    ended = replace(before, state_name="Completed", changed_at=3.0, holder=None)
    assert journal.catalog.find(RUN) == ended


def test_a_run_may_be_added_by_its_driver(journal: Journal, world: World) -> None:
    """What is added with a holder is claimed: nobody else gets it while that one lives."""
    journal.catalog.create(replace(entry(), epoch=1, holder=holder(1), heartbeat=5.0))
    with pytest.raises(RunHeld):
        journal.catalog.claim(RUN, holder(2), 6.0)
    journal.catalog.heartbeat(RUN, 1, 7.0)
    world.dead.add(1)
    assert journal.catalog.claim(RUN, holder(2), 8.0) == 2


def test_of_many_claims_one_wins(open_journal: Callable[[], Journal]) -> None:
    """However many threads claim a run at once, one gets it and the others hear who has it."""
    open_journal().catalog.create(entry())
    start = threading.Barrier(12)
    won: list[int] = []
    refused: list[int] = []

    def claim(pid: int) -> None:
        journal = open_journal()
        start.wait()
        try:
            assert journal.catalog.claim(RUN, holder(pid), 1.0) == 1
            won.append(pid)
        except RunHeld as held:
            refused.append(held.pid)

    threads = [threading.Thread(target=claim, args=(pid,)) for pid in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert refused == won * 11


def test_many_may_begin_at_once(open_journal: Callable[[], Journal]) -> None:
    """Whoever comes first makes what is missing, and no run is lost on the way."""
    start = threading.Barrier(8)

    def begin(number: int) -> None:
        journal = open_journal()
        start.wait()
        journal.catalog.create(entry(f"run-{number}"))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {run.id for run in open_journal().catalog.list()} == {f"run-{n}" for n in range(8)}


def test_a_deleted_run_is_gone(open_journal: Callable[[], Journal], world: World) -> None:
    """With a run its record and its commands go; a driver that still writes is told."""
    journal = open_journal()
    journal.catalog.create(entry())
    epoch = journal.catalog.claim(RUN, holder(9), 1.0)
    record = journal.write(RUN, epoch)
    record.append(Driver().batch([flow_created()]))
    record.close()
    journal.inbox.send(RUN, {"do": "cancel"})
    assert open_journal().size(RUN) >= 0
    with pytest.raises(RunHeld, match="9"):
        open_journal().catalog.claim(RUN, holder(10), 2.0)
    world.dead.add(9)
    ours = open_journal().catalog.claim(RUN, holder(10), 2.0)
    with pytest.raises(RunTakenOver):
        open_journal().delete(RUN, epoch)
    assert open_journal().catalog.find(RUN).id == RUN
    open_journal().delete(RUN, ours)
    assert journal.catalog.list() == []
    assert journal.inbox.receive(RUN) == []
    assert journal.size(RUN) == 0
    with pytest.raises(RunNotFound):
        journal.read(RUN)
    with pytest.raises(RunTakenOver):
        journal.catalog.heartbeat(RUN, epoch, 3.0)
    with pytest.raises(RunNotFound):
        journal.delete(RUN, ours)


def test_a_record_that_is_not_listed_can_be_deleted(journal: Journal) -> None:
    """Nobody can claim what the catalog does not know; it can be deleted all the same."""
    journal.catalog.create(entry("another"))
    journal.write(RUN, 3).append(Driver().batch([flow_created()]))
    journal.delete(RUN, 0)
    with pytest.raises(RunNotFound):
        journal.read(RUN)
