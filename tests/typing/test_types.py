"""What users see in a type checker: mypy and pyright agree with what is written in ``cases``.

A line that must be an error ends in ``# error:`` and the words for it, mypy's and pyright's (those that begin
with "report"). There are no other errors; types are asserted with ``assert_type``.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = sorted((Path(__file__).parent / "cases").glob("*.py"))

MYPY = """
[mypy]
strict = true
follow_imports = silent
explicit_package_bases = true
namespace_packages = true
"""

Errors = dict[tuple[str, int, str], str]
"""What is wrong, by (file, line, word for it)."""


def expected(*, pyright: bool) -> Errors:
    """Return the errors that the cases announce."""
    found = {}
    for case in CASES:
        for number, line in enumerate(case.read_text("utf-8").splitlines(), 1):
            _, _, words = line.partition("# error: ")
            for word in re.findall(r"[\w-]+", words):
                if word.startswith("report") is pyright:
                    found[case.name, number, word] = line.strip()
    return found


def mypy(folder: Path, cache: Path) -> Errors:
    """Check the cases with mypy, as strictly as users may."""
    config = folder / "mypy.ini"
    config.write_text(f"{MYPY}mypy_path = {ROOT}\n", "utf-8")
    command = ["mypy", "--config-file", str(config), "--cache-dir", str(cache), "--output", "json"]
    done = run([sys.executable, "-m", *command, *map(str, CASES)])
    errors = [json.loads(line) for line in done.splitlines()]
    return {
        (Path(each["file"]).name, each["line"], each["code"]): each["message"]
        for each in errors
        if each["severity"] == "error"
    }


def pyright(folder: Path) -> Errors:
    """Check the cases with pyright, in the mode that it has by default."""
    config = folder / "pyrightconfig.json"
    settings = {"include": [*map(str, CASES)], "extraPaths": [str(ROOT)]}
    config.write_text(json.dumps(settings | {"typeCheckingMode": "standard"}), "utf-8")
    command = ["basedpyright", "--project", str(config), "--pythonpath", sys.executable]
    done = run([sys.executable, "-m", *command, "--outputjson"])
    report = json.loads(done)
    assert report["summary"]["filesAnalyzed"] == len(CASES)
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["rule"]): each["message"]
        for each in report["generalDiagnostics"]
    }


def run(command: list[str]) -> str:
    """Return what a checker prints on finding something, as it must."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def check(found: Errors, announced: Errors) -> None:
    """Fail with a line for each error that is not as it was announced."""
    more = [f"{place} was not announced: {found[place]}" for place in found.keys() - announced]
    less = [f"{place} was not found: {announced[place]}" for place in announced.keys() - found]
    if more or less:
        pytest.fail("\n".join(sorted(more + less)), pytrace=False)


def test_mypy_agrees(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Strict mypy finds the errors that the cases announce, and no other."""
    cache = pytestconfig.cache.mkdir("types")
    check(mypy(tmp_path, cache), expected(pyright=False))


def test_pyright_agrees(tmp_path: Path) -> None:
    """Pyright finds the errors that the cases announce, and no other."""
    check(pyright(tmp_path), expected(pyright=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_cases_can_be_defined(case: Path) -> None:
    """What the cases define, dflow takes; the calls are not made."""
    assert runpy.run_path(str(case))
