"""``dflow export``: the whole record of a run as lines of JSON, one object a line.

The `type` of an object says what it is: ``run`` (as ``dflow ls --json`` has it, with all its details),
``event`` (what happened, by its number), ``flow_run`` and ``task_run`` (what that left, as ``dflow show
--json`` has them), ``log`` (a line of the log), ``problem`` (what could not be read, and where reading it
ended), and at last ``end``, which counts the others. Pickled values are left out, with their size; nothing
here unpickles.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TextIO

from cyclopts import Parameter

from dflow import runs
from dflow.cli import exits, facts, streams, text
from dflow.cli.show import lacks
from dflow.core.codec import encode
from dflow.core.events import Event
from dflow.engine import process
from dflow.errors import EnvironmentProblem, JournalError, RunNotFound
from dflow.ports import RunReader
from dflow.runs import Listed

PAGE = 1000
"""How many task runs are read at once."""

NAMES = {"event": "event", "flow_run": "flow run", "task_run": "task run", "log": "log line"}
"""What the parts of a record are called, by the type of their objects."""

Object = dict[str, Any]


def export(
    run: str, /, *, output: Annotated[Path | None, Parameter(("--output", "-o"))] = None
) -> int:
    """Write all that is recorded of a run as lines of JSON.

    Pickled values are left out. If a part of the record cannot be read, a line of type ``problem`` says
    where it ended, the rest follows, and the exit code is 1.

    Args:
        run: an id, the start of one, a name, or latest
        output: the file to write; without it, standard output
    """
    listed = runs.find(run)
    problems = _write(listed, sys.stdout) if output is None else _write_file(listed, output)
    for problem in problems:
        streams.complain(problem)
    if problems:
        streams.say("The export is not complete.")
    return exits.FAILED if problems else exits.COMPLETED


def _write_file(listed: Listed, output: Path) -> list[str]:
    """Write a file, which appears under its name when it is finished; a pipe or a device as it comes."""
    try:
        if output.exists() and not output.is_file():
            with output.open("w", encoding="utf-8") as file:
                return _write(listed, file)
        draft = output.with_name(f".{output.name}.{os.getpid()}")
        try:
            with draft.open("w", encoding="utf-8") as file:
                problems = _write(listed, file)
            draft.replace(output)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"'{output}' cannot be written: {error.strerror or error}. Name another file with --output."
        ) from error
    return problems


def _write(listed: Listed, file: TextIO) -> list[str]:
    """Write a run to a file; return what could not be read."""
    problems = []
    for found in objects(listed):
        file.write(json.dumps(_plain(found), allow_nan=False) + "\n")
        if found["type"] == "problem":
            problems.append(found["message"])
    return problems


def objects(listed: Listed) -> Iterator[Object]:
    """Yield what is recorded of a run, piece by piece."""
    counts: Counter[str] = Counter()
    for found in _objects(listed):
        counts[found["type"]] += 1
        yield found
    yield {"type": "end", "complete": not counts["problem"], "lines": dict(counts)}


def _objects(listed: Listed) -> Iterator[Object]:
    now = process.process().clock.now()
    pickled = {k: v for k, v in listed.entry.details.items() if k.startswith("pickled_")}
    details = {k: v for k, v in listed.entry.details.items() if k not in pickled}
    of_run = facts.of_listed(listed, now, runs.sizes(listed))
    yield {"type": "run", **of_run, "details": details} | {
        key: _size(len(json.dumps(text)) * 3 // 4) for key, text in pickled.items()
    }
    try:
        with runs.opened(listed) as reader:
            yield from _record(listed, reader)
    except RunNotFound:
        pass  # it ended before anything but its entry in the catalog was written
    except JournalError as error:
        yield _problem("record", str(error))


def _record(listed: Listed, reader: RunReader) -> Iterator[Object]:
    if missing := reader.missing():
        yield _problem("record", lacks(listed.entry.name, missing))
    sections: Mapping[str, Callable[[], Iterator[Object]]] = {
        "event": lambda: _events(reader),
        "flow_run": lambda: _flow_runs(reader, listed.alive),
        "task_run": lambda: _task_runs(reader, listed.alive),
        "log": lambda: _logs(reader),
    }
    for kind, section in sections.items():
        written = 0
        try:
            for found in section():
                yield {"type": kind} | found
                written += 1
        except JournalError as error:
            yield _problem(
                kind, f"Of its {NAMES[kind]}s only the first {written} can be read. {error}"
            )


def _problem(section: str, message: str) -> Object:
    return {"type": "problem", "section": section, "message": message}


def _events(reader: RunReader) -> Iterator[Object]:
    for number, event in reader.events():
        yield {"number": number} | _event(event)


def _event(event: Event | None) -> Object:
    """Return what an event says; of one that a newer dflow wrote only that it is there."""
    if event is None:
        return {"kind": None}
    kind, version, fields = encode(event)
    return {"kind": kind, "version": version, "at": text.iso(fields.pop("at"))} | fields


def _flow_runs(reader: RunReader, alive: bool) -> Iterator[Object]:
    for run in reader.flow_runs():
        yield dict(facts.of_flow_run(run, alive))


def _task_runs(reader: RunReader, alive: bool) -> Iterator[Object]:
    after, before = 0, -1
    while after != before:
        before = after
        for run in reader.task_runs(before, PAGE):
            yield dict(facts.of_task_run(run, alive))
            after += 1


def _logs(reader: RunReader) -> Iterator[Object]:
    for entry in reader.logs():
        yield {key: value for key, value in facts.of_log(entry).items() if key != "run"}


def _size(number: int) -> Object:
    return {"bytes": number}


def _plain(value: Any) -> Any:
    """Return data as JSON has it: bytes by their size, numbers that are none as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return _size(len(value))
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
