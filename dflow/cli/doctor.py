"""``dflow doctor``: whether dflow can work here, and whether the record of a run is sound."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dflow import runs, settings
from dflow.cli import streams, text
from dflow.cli.checks import check
from dflow.cli.doctor_clusters import ClusterFacts, lines, look_at, way
from dflow.cli.options import AsJson, Flag
from dflow.engine import process
from dflow.errors import DflowError

PACKAGES = (
    "cloudpickle",
    "cyclopts",
    "dask",
    "distributed",
    "fsspec",
    "msgpack",
    "msgspec",
    "psutil",
    "pydantic",
    "pydantic-settings",
    "rich",
)
"""The packages without which dflow does not work."""


class SettingFacts(TypedDict):
    """A setting: its value, where that comes from, and what it means."""

    value: str
    origin: str
    meaning: str


class Findings(TypedDict):
    """What ``dflow doctor --json`` prints; `problems` is empty if all is well.

    `checked` is the id of the run whose record was checked, with its number of events.
    """

    dflow: str
    python: str
    platform: str
    packages: dict[str, str]
    settings: dict[str, SettingFacts]
    journal: dict[str, str]
    writable: bool
    dask: str
    cluster: ClusterFacts | None
    checked: str | None
    events: int | None
    problems: list[str]


def doctor(
    run: str = "", /, *, cluster: str = "", deep: Flag = False, as_json: AsJson = False
) -> int:
    """Tell what dflow finds here; with RUN, check the record of that run too, and its stored results.

    Of a cluster that is not dflow's own it tells which runs own work there, with a driver or without.

    Args:
        run: an id, the start of one, a name, or latest
        cluster: the address of a Dask scheduler; else that of the cluster on which RUN began, if it has one
        deep: read all stored results of RUN, and compare them with what was written
        as_json: print JSON: what was found, and the problems
    """
    found = examine()
    if run:
        cluster = _check(run, found, deep=deep) or cluster
    if cluster:
        found["cluster"] = look_at(cluster)
    if as_json:
        streams.print_json(found)
    else:
        _print(found)
    return 1 if found["problems"] else 0


# What is here -------------------------------------------------------------------------------------------


def examine() -> Findings:
    """Return what is found here."""
    found = Findings(
        dflow=version("dflow-dask"),
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: version(name) for name in PACKAGES},
        settings={},
        journal={},
        writable=False,
        dask=way(),
        cluster=None,
        checked=None,
        events=None,
        problems=[],
    )
    missing = [name for name, number in found["packages"].items() if number == MISSING]
    found["problems"] += [
        f"The package '{name}' is missing: pip install {name}" for name in missing
    ]
    try:
        _settings(found)
        _home(found)
    except DflowError as error:
        found["problems"].append(str(error))
    return found


MISSING = "not installed"


def version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return MISSING


def _settings(found: Findings) -> None:
    values, origins = settings.load(), settings.origins()
    for name, field in settings.Settings.model_fields.items():
        found["settings"][name] = SettingFacts(
            value=_shown(getattr(values, name)),
            origin=origins[name],
            meaning=field.description or "",
        )


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _home(found: Findings) -> None:
    here = process.process()
    found["journal"] = dict(here.journal.describe())
    home = Path(here.settings.home)
    found["writable"] = writable(home)
    if not found["writable"]:
        found["problems"].append(
            f"Nothing can be written to '{home}'. Make it a folder that you may write to, "
            "or set DFLOW_HOME to another one."
        )
    here.journal.catalog.list(1)


def writable(home: Path) -> bool:
    """Tell whether the folder of the journal can be written to, or made if it is not there."""
    there = next(folder for folder in (home, *home.parents) if os.path.lexists(folder))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


# The record of a run ------------------------------------------------------------------------------------


def _check(run: str, found: Findings, *, deep: bool) -> str:
    """Check the record of a run; return the address of the cluster on which it began, if it has one."""
    listed = runs.find(run)
    found["checked"] = listed.entry.id
    try:
        with runs.opened(listed) as reader:
            found["events"], broken = check(reader, listed.entry.name, deep=deep)
    except DflowError as error:
        broken = [str(error)]
    found["problems"] += broken
    address: str = (listed.entry.details.get("runner") or {}).get("address") or ""
    return address


# On a page --------------------------------------------------------------------------------------------------


def _print(found: Findings) -> None:
    console = streams.out()
    console.print(Text.assemble(("dflow ", "bold"), found["dflow"]))
    _section("", {"python": found["python"], "platform": found["platform"]})
    _section("Packages", found["packages"] | {"work on dask": found["dask"]})
    shown = {
        f"DFLOW_{name.upper()}": f"{setting['value']}  ({setting['origin']})"
        for name, setting in found["settings"].items()
    }
    _section("Settings", shown)
    _section("Journal", found["journal"] | {"writable": "yes" if found["writable"] else "no"})
    if found["cluster"] is not None:
        _section("Cluster", lines(found["cluster"]))
    console.print()
    for problem in found["problems"]:
        console.print(Text(f"Problem: {text.block(problem)}", "red"), soft_wrap=True)
    if not found["problems"]:
        checked = f"All {found['events']} events of run {found['checked']} are sound. "
        message = (checked if found["checked"] else "") + "No problems were found."
        console.print(Text(message, "green"), soft_wrap=True)


def _section(title: str, values: dict[str, str]) -> None:
    console = streams.out()
    if title:
        console.print()
        console.print(Text(title, "bold"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in values.items():
        grid.add_row(name, Text(text.line(value)))
    console.print(Padding.indent(grid, 2))
