"""What the sessions of one process share, when some of them still end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dflow import flow, shutdown
from dflow.engine.process import process
from dflow.engine.session import Session
from dflow.engine.system import is_alive
from dflow.journal import SqliteJournal
from tests.engine.world import PATIENCE


@pytest.mark.parametrize("way", ["other settings", "a shutdown"])
def test_a_session_that_ends_keeps_its_journal(
    way: str, dflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What begins meanwhile has a journal of its own; the first one is closed when nobody needs it."""
    shutdown()  # what earlier tests have left open
    ends, go_on = threading.Event(), threading.Event()
    closed: list[SqliteJournal] = []
    close_session, close_journal = Session.close, SqliteJournal.close

    def close_late(session: Session) -> None:
        if session.root.flow_name == "first":
            ends.set()
            assert go_on.wait(PATIENCE)
        close_session(session)

    def close(journal: SqliteJournal) -> None:
        closed.append(journal)
        close_journal(journal)

    monkeypatch.setattr(Session, "close", close_late)
    monkeypatch.setattr(SqliteJournal, "close", close)

    @flow
    def first() -> object:
        return process().journal

    @flow
    def second() -> object:
        return process().journal

    handle = first.start()
    assert ends.wait(PATIENCE)
    if way == "a shutdown":
        shutdown()
    else:
        monkeypatch.setenv("DFLOW_HOME", str(tmp_path / "other"))
    new = second()
    assert closed == []
    go_on.set()
    old = handle.result()
    assert old is not new
    assert closed == [old]
    shutdown()
    assert closed == [old, new]
    looked = SqliteJournal(dflow_home, is_alive=is_alive)
    told = {run.flow_name: (run.state_name, run.holder) for run in looked.catalog.list()}
    looked.close()
    assert told["first"] == ("Completed", None)
