"""Loading a flow by ``FILE.py:FLOW``: in processes of their own, since it changes what ``__main__`` is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dflow import entrypoints
from dflow.errors import EntrypointError
from dflow.ports import RunEntry

ONE = """
import sys
import dflow
from helper import helped, a_flow

@dflow.task
def double(x): return 2 * x

@dflow.flow(name="named")
def main(x=1):
    return helped(double.fn(x))

assert __name__ == "__mp_main__"
assert sys.modules["__main__"].double is double
if __name__ == "__main__":
    raise AssertionError("the guarded part was run")
"""
HELPER = """
import dflow
def helped(x): return ("helped", x)
@dflow.flow
def a_flow(): return "a"
"""
TWO = """
import dflow
@dflow.flow
def one(): return 1
@dflow.flow(name="the-other")
def two(): return 2
class Space:
    @dflow.flow
    def inside(): return 3
number = 5
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with files that define flows."""
    made = tmp_path_factory.mktemp("flows")
    for name, text in {"one": ONE, "helper": HELPER, "two": TWO}.items():
        (made / f"{name}.py").write_text(text)
    (made / "alias.py").write_text("from helper import a_flow\nagain = a_flow\n")
    (made / "none.py").write_text("x = 1\n")
    (made / "broken.py").write_text("def f(:\n")
    (made / "nul.py").write_bytes(b"x = 1\0\n")
    (made / "raises.py").write_text("def deep():\n    return 1 / 0\ndeep()\n")
    (made / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (made / "package").mkdir()
    (made / "package" / "__init__.py").write_text(HELPER)
    (made / "elsewhere").mkdir()
    return made


SERVER = """
import os, sys
from dflow import entrypoints
from dflow.errors import EntrypointError
from dflow.ports import RunEntry
def run(**place):
    return RunEntry("id", "calm-otter-1", "main", 0.0, details={"entrypoint": place})
for line in sys.stdin:
    inside, text, show = line.rstrip().split("|")
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        print("END", flush=True)
        continue
    os.chdir(inside)
    before = dict(sys.modules)
    try:
        found = entrypoints.load(text)
        print(eval(show))
    except EntrypointError as error:
        print("refused:", error)
        same = all(sys.modules.get(name) is before.get(name) for name in ("__main__", "__mp_main__"))
        print("__main__ is as it was" if same else "__main__ is the file")
    sys.stdout.flush()
    os._exit(0)
"""
Load = Callable[..., str]


@pytest.fixture(scope="module")
def load(folder: Path) -> Iterator[Load]:
    """Return what loads a flow in a process of its own, and gives what it shows, or what the error says."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:

        def ask(text: str, show: str = "found.fn()", inside: str = ".") -> str:
            assert server.stdin is not None
            assert server.stdout is not None
            print(folder / inside, text, show, sep="|", file=server.stdin, flush=True)
            return "".join(iter(server.stdout.readline, "END\n")).strip()

        yield ask
        server.communicate(timeout=60)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("one.py:main", "('helped', 2)"),
        ("one.py:named", "('helped', 2)"),
        ("one.py", "('helped', 2)"),
        ("./one.py", "('helped', 2)"),
        ("two.py:one", "1"),
        ("two.py:two", "2"),
        ("two.py:the-other", "2"),
        ("two.py:Space.inside", "3"),
        ("helper:a_flow", "a"),
        ("helper", "a"),
        ("package:a_flow", "a"),
        ("package", "a"),
        ("alias.py:again", "a"),
    ],
)
def test_a_flow_is_found(load: Load, text: str, result: str) -> None:
    """By its function, its name, its place in a class, or alone; what a file imports is not in its way."""
    assert load(text) == result


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("two.py", "'two.py' does not say which flow: name one as FILE.py:FLOW. It has: one, two."),
        ("two.py:three", "'two.py' has no flow 'three'. It has: one, two."),
        ("two.py:number", "'two.py' has no flow 'number'. It has: one, two."),
        ("none.py", "'none.py' has no flows."),
        ("none.py:main", "'none.py' has no flows."),
        ("missing.py:main", "'missing.py' cannot be read: No such file or directory."),
        ("package/:main", "'package' cannot be read: Is a directory."),
        ("broken.py:main", "'broken.py' is not valid Python: invalid syntax"),
        ("nul.py:main", "'nul.py' is not valid Python:"),
        ("no_such_module:main", "The module 'no_such_module' cannot be imported"),
    ],
)
def test_what_cannot_be_loaded_is_said(load: Load, text: str, said: str) -> None:
    """With what there is instead; a file that could not be loaded leaves ``__main__`` as it was."""
    shown = load(text)
    assert shown.startswith(f"refused: {said}")
    assert shown.endswith("as it was") == ("It has" not in shown and "no flows" not in shown)


def test_a_file_that_raises_shows_where(load: Load) -> None:
    """The user's own lines, and none of ours; a file that exits does not end the process."""
    said = load("raises.py:main")
    assert "'raises.py' raised an error while it was loaded" in said
    assert "in deep" in said
    assert "ZeroDivisionError" in said
    assert "entrypoints.py" not in said
    assert said.endswith("__main__ is as it was")
    assert "SystemExit: 3" in load("leaves.py:main")


def test_a_file_is_loaded_once(load: Load) -> None:
    """Loading it again gives the same module, with the same classes; another file takes its place."""
    show = "entrypoints.load('one.py').fn is found.fn, entrypoints.load('two.py:one').fn()"
    assert load("one.py", show) == "(True, 1)"


def test_a_recorded_flow_is_found_again(load: Load, folder: Path) -> None:
    """By file for a script, by module otherwise, also from another folder."""
    show = (
        "entrypoints.load_recorded(run(module='__main__', file={file!r}, qualname='main')).fn(), "
        "entrypoints.load_recorded(run(module='package', file={package!r}, qualname='a_flow')).fn()"
    ).format(file=str(folder / "one.py"), package=str(folder / "package" / "__init__.py"))
    assert load("../helper.py", show, inside="elsewhere") == "(('helped', 2), 'a')"


@pytest.mark.parametrize(
    ("place", "match"),
    [
        ({"nameless": "it was defined in a notebook or at a prompt"}, "notebook or at a prompt"),
        ({"qualname": "make.<locals>.main", "nameless": "inside"}, "cannot be found by its name"),
        ({"file": "/gone/one.py"}, r"'/gone/one.py' cannot be read"),
        ({"module": "gone.away"}, r"No module named 'gone'"),
    ],
)
def test_a_flow_that_is_not_found_again(place: dict[str, str], match: str) -> None:
    """The error says why, and how to go on with what program."""
    whole = {"module": "__main__", "file": "", "qualname": "main"} | place
    entry = RunEntry("id", "calm-otter-1", "main", 0.0, details={"entrypoint": whole})
    with pytest.raises(EntrypointError, match=match) as caught:
        entrypoints.load_recorded(entry)
    assert str(caught.value).endswith('with: main.resume("calm-otter-1")')
