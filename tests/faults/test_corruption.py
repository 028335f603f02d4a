"""That the campaign of corruption would notice what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow.ports import Missing
from tests.faults import corruption
from tests.faults.corruption import Subject


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Return a run that was killed."""
    return next(corruption.subjects(tmp_path_factory.mktemp("home"), full=False))


def test_a_loss_that_nobody_tells_is_found(subject: Subject, tmp_path: Path) -> None:
    """Without its watermark a record whose log is cut is taken for whole, which the campaign says."""
    assert corruption.outcome(corruption.read, tmp_path, subject) == "detected"  # nothing is there
    corruption.put(tmp_path, subject.files)
    assert corruption.outcome(corruption.read, tmp_path, subject) == "harmless"
    name = "journal.sqlite-wal"
    corruption.put(tmp_path, subject.files | {name: subject.files[name][:-1]})
    assert corruption.outcome(corruption.read, tmp_path, subject) == "detected"
    (corruption.folder(tmp_path) / "watermark").unlink()
    for look in (corruption.read, corruption.take_up):
        assert "are gone, and Missing(events=0, logs=0)" in corruption.outcome(
            look, tmp_path, subject
        )


def test_a_driver_is_killed_within_a_transaction(tmp_path: Path) -> None:
    """Part of it is in the file, and what undoes that beside it; without this the state is another one."""
    subject = corruption.cut_short(tmp_path / "cut")
    home = tmp_path / "home"
    corruption.put(home, subject.files)
    assert corruption.outcome(corruption.read, home, subject) == "harmless"
    del subject.files["journal.sqlite-journal"]
    corruption.put(home, subject.files)
    assert corruption.outcome(corruption.read, home, subject) == "detected"


def test_another_state_is_found(subject: Subject) -> None:
    """A state that was never acknowledged, or another value, is wrong; a value that is gone is noticed."""
    whole = subject.states[-1]
    assert corruption.verdict(subject, whole, Missing()) == "harmless"
    values = whole[-1]
    assert any(values)
    gone = [*whole[:-1], [None] * len(values)]
    assert corruption.verdict(subject, gone, Missing()) == "detected"
    other = [*whole[:-1], [b"other"] * len(values)]
    assert "is another" in corruption.verdict(subject, other, Missing())
    fewer = [whole[0][:-1], *whole[1:]]
    assert corruption.verdict(subject, fewer, Missing(events=1)) == "what is read was never written"


def test_foreign_exceptions_are_found(subject: Subject, tmp_path: Path) -> None:
    """What is no error of the journal does not pass for detected."""

    def look(home: Path, subject: Subject) -> str:
        raise KeyError(home, subject.name)

    assert corruption.outcome(look, tmp_path, subject).startswith("KeyError came out")
