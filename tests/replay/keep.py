"""Records that are kept for ever: made by one dflow, read, replayed and resumed by all later ones.

Each folder below ``kept`` is the home of a journal as text: the schema of a file, then its rows, one a
line, with numbers as exact as they were. `restored` makes files of it. When a schema has got a new
migration, or events and records have changed, add the next one and commit it; never change or delete one
that is there::

    python -m tests.replay.keep 04-what-is-new

It runs the flows of ``flows.py``, one of which kills its driver, in processes of their own, under names and
in folders that say nothing of the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = HERE / "kept"

RUN = """
import os, socket, sys, time
flow = sys.argv[1]
sys.argv = ["dflow", "run", "flows.py"]
socket.gethostname = lambda: "lab"
now = time.time
time.time = lambda: now() - 86400.0
os.chdir("/")
from tests.replay.keep import loaded
module = loaded()
from dflow import shutdown
from dflow.engine import process
process.process().journal.leases.acquire("gpu", "ada", 3600.0, at=1e9, limit=2)
getattr(module, flow)()
shutdown()
"""


def loaded() -> ModuleType:
    """Return the flows as the module ``flows`` of somebody: by that name kept records know them."""
    module = sys.modules["flows"] = ModuleType("flows")
    module.__file__ = "/home/ada/flows.py"
    source = (HERE / "flows.py").read_text(encoding="utf-8")
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module


def keep(name: str) -> Path:
    """Run the flows and keep their records under a name; return the folder."""
    folder = KEPT / name
    folder.mkdir(parents=True)
    with TemporaryDirectory() as temporary:
        home = Path(temporary) / "home"
        home.with_name("packages").symlink_to(ROOT)
        _run(home, "everything", expected=0)
        _run(home, "cut", expected=-signal.SIGKILL)
        for path in sorted(home.rglob("*")):
            if path.suffix == ".sqlite":
                _write(folder / path.relative_to(home).with_suffix(".jsonl"), _dump(path))
            elif path.name == "watermark":
                _write(folder / path.relative_to(home), path.read_text())
    return folder


def _run(home: Path, flow: str, expected: int) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(home.with_name("packages")),
        "DFLOW_HOME": str(home),
        "LOGNAME": "ada",
        "DFLOW_REPLAY_KILL": "yes",
    }
    command = [sys.executable, "-c", RUN, flow]
    ran = subprocess.run(command, env=environment, check=False)
    if ran.returncode != expected:
        raise SystemExit(f"The flow '{flow}' ended with {ran.returncode}.")


def _dump(path: Path) -> str:
    """Return a file as lines of JSON: its marks and its schema, then its rows."""
    db = sqlite3.connect(path)
    schema = db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    head = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in MARKS}
    lines: list[Any] = [head | {"sql": [sql for (sql,) in schema]}]
    for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        rows = db.execute(f"SELECT * FROM {table}").fetchall()
        lines += [[table, *(_hex(c) if isinstance(c, bytes) else c for c in row)] for row in rows]
    db.close()
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


MARKS = ("application_id", "user_version")


def _hex(blob: bytes) -> dict[str, str]:
    _check(blob)
    return {"hex": blob.hex()}


def _load(text: str, path: Path) -> None:
    """Make a file of what `_dump` gave."""
    head, *rows = map(json.loads, text.splitlines())
    db = sqlite3.connect(path)
    for statement in [*head["sql"], *(f"PRAGMA {name} = {head[name]}" for name in MARKS)]:
        db.execute(statement)
    for table, *row in rows:
        cells = [bytes.fromhex(c["hex"]) if isinstance(c, dict) else c for c in row]
        db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(cells))})", cells)
    db.commit()
    db.close()


def _write(path: Path, text: str) -> None:
    _check(text.encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _check(content: bytes) -> None:
    """End the program if what is to be kept would tell where it was made."""
    for place in (ROOT, Path(sys.prefix), Path.home()):
        if str(place).encode() in content:
            raise SystemExit(f"The path '{place}' would be kept in: {content!r}")


def restored(folder: Path, home: Path) -> Path:
    """Make the files of a kept home in the folder `home`, and return that."""
    for source in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = home / source.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".jsonl":
            _load(source.read_text(encoding="utf-8"), target.with_suffix(".sqlite"))
        else:
            shutil.copy(source, target)
    return home


if __name__ == "__main__":
    print(f"Kept in {keep(sys.argv[1])}.")
