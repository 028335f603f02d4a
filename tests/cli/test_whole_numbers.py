"""Whole numbers as parameters of ``dflow run``: they are never rounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cyclopts import App, CycloptsError

from dflow.cli import whole_numbers
from tests.cli.conftest import Command

FLOWS = '''
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Optional

from cyclopts import Parameter
from dflow import flow


@dataclass
class Config:
    """A dataclass."""

    n: int = 1
    lr: float = 0.5


class Colour(Enum):
    """An enum."""

    RED = 1


@flow(task_runner="inline")
def show(
    *several: int,
    n: int = 0,
    maybe: Optional[int] = 9,
    items: list[int] = [],
    pair: tuple[int, float] = (0, 0.0),
    named: dict[str, int] = {},
    config: Config = Config(),
    choice: Literal[1, 2] = 1,
    either: int | float = 0,
    real: float = 0.0,
    bare=3,
    text: str = "",
    yes: bool = False,
    colour: Colour = Colour.RED,
    anything: Any = None,
    own: Annotated[int, Parameter(converter=lambda kind, tokens: 7)] = 0,
    **others: int,
) -> Any:
    """Show what is not as it is by default."""
    given = {name: value for name, value in locals().items() if name not in ("several", "others")}
    defaults = dict(
        n=0, maybe=9, items=[], pair=(0, 0.0), named={}, config=Config(), choice=1, either=0, real=0.0,
        bare=3, text="", yes=False, colour=Colour.RED, anything=None, own=0,
    )
    changed = {name: value for name, value in given.items() if value != defaults[name]}
    return changed | others | ({"several": several} if several else {})
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with a flow of many parameters."""
    path = tmp_path / "numbers_flow.py"
    path.write_text(FLOWS)
    return path


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ("--n 2.5", "--n", "2.5"),
        ("--n=-0.5", "--n", "-0.5"),
        ("--n 1.5e0", "--n", "1.5e0"),
        ("--n 9007199254740993.5", "--n", "9007199254740993.5"),
        ("--n 1.0e400", "--n", "1.0e400"),
        ("--n many", "--n", "many"),
        ("--maybe 2.5", "--maybe", "2.5"),
        ("--items 1 --items 2.5", "--items", "2.5"),
        ("--pair 2.5 1", "--pair", "2.5"),
        ("--named.a 2.5", "--named.a", "2.5"),
        ("--config.n 2.5", "--config.n", "2.5"),
        ("--choice 1.6", "--choice", "1.6"),
        ("--bare 2.5", "--bare", "2.5"),
        ("--other 2.5", "--other", "2.5"),
        ("1 2.5", "SEVERAL", "2.5"),
    ],
)
def test_a_fraction_is_no_whole_number(
    arguments: str, name: str, value: str, command: Command, file: Path
) -> None:
    """Wherever a whole number is wanted a fraction is wrong usage: the error names parameter and value."""
    ran = command("run", file, *arguments.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert name in ran.err
    assert value in ran.err
    assert command("ls", "--json").out.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ("--n 3", "{'n': 3}"),
        ("--n 3.0", "{'n': 3}"),
        ("--n 3.", "{'n': 3}"),
        ("--n -3", "{'n': -3}"),
        ("--n 0x10", "{'n': 16}"),
        ("--n 9007199254740993", "{'n': 9007199254740993}"),
        ("--maybe 3", "{'maybe': 3}"),
        ("--items 1 --items 2", "{'items': [1, 2]}"),
        ("--pair 2 1.5", "{'pair': (2, 1.5)}"),
        ("--named.a 2", "{'named': {'a': 2}}"),
        ("--config.n 2 --config.lr 0.25", "{'config': Config(n=2, lr=0.25)}"),
        ("--choice 2", "{'choice': 2}"),
        ("--either 2", "{'either': 2}"),
        ("--either 2.5", "{'either': 2.5}"),
        ("--real 2.5", "{'real': 2.5}"),
        ("--bare 4", "{'bare': 4}"),
        ("--text 2.5", "{'text': '2.5'}"),
        ("--yes", "{'yes': True}"),
        ("--colour red --yes", "{'yes': True}"),
        ("--anything 2.5", "{'anything': '2.5'}"),
        ("--own 2.5", "{'own': 7}"),
        ("--other 2", "{'other': 2}"),
        ("1 2", "{'several': (1, 2)}"),
    ],
)
def test_all_else_is_converted_as_before(
    arguments: str, result: str, command: Command, file: Path
) -> None:
    """Whole numbers stay what they are, and values of other types are read as ever."""
    ran = command("run", file, *arguments.split())
    assert (ran.code, ran.out) == (0, f"{result}\n"), ran.err


def test_wrong_values_of_other_types_are_named(command: Command, file: Path) -> None:
    """What cannot be converted is told with the name that was written, as before."""
    for name, value in (("--real", "much"), ("--colour", "blue"), ("--yes", "2.5")):
        ran = command("run", file, f"{name}={value}")
        assert ran.code == 2
        assert name in ran.err


@pytest.mark.parametrize("value", ["none", "null", "3"])
def test_none_is_what_cyclopts_takes_for_it(value: str) -> None:
    """Where None is possible it can be given as far as cyclopts itself reads it: not every version does."""

    def function(maybe: int | None = 9) -> None: ...

    def parsed(**options: Any) -> Any:
        app = App(default_command=function, **options)
        try:
            return app.parse_args(["--maybe", value], exit_on_error=False, print_error=False)[1]
        except CycloptsError as error:
            return str(error)

    assert parsed(config=whole_numbers.keep) == parsed()
