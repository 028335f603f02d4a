"""Names of runs: which rules are taken, and what they make."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.attempts import names
from dflow.attempts.names import MAX_NAME, check_rule, is_fixed, made, used_by
from dflow.errors import DefinitionError

KNOWN = ("x", "lr", "day", "name", "width")


def check(rule: object) -> None:
    """Check a rule of a flow with those parameters."""
    check_rule("flow 'f'", "flow_run_name", rule, KNOWN)


def make(rule: Any, **parameters: Any) -> str:
    """Make a name of it."""
    return made("flow 'f'", "flow_run_name", rule, parameters)


# Templates ----------------------------------------------------------------------------------------------

FORMATS: list[tuple[str, dict[str, Any], str, set[str]]] = [
    ("plain", {}, "plain", set()),
    ("", {}, "", set()),
    ("{{x}}", {"x": 1}, "{x}", set()),
    ("a-{x}-{x}", {"x": 1}, "a-1-1", {"x"}),
    ("{x.name}", {"x": SimpleNamespace(name="n")}, "n", {"x"}),
    ("{x[0]}", {"x": ["first"]}, "first", {"x"}),
    ("{x[a b].name}", {"x": {"a b": SimpleNamespace(name="n")}}, "n", {"x"}),
    ("{x.__class__.__name__}", {"x": 1}, "int", {"x"}),
    ("{lr:.3f}", {"lr": 0.12345}, "0.123", {"lr"}),
    ("{day:%A}", {"day": date(2024, 5, 1)}, "Wednesday", {"day"}),
    ("{x!r:>{width}}", {"x": "a", "width": 5}, "  'a'", {"x", "width"}),
    ("{x!s:.{width}}", {"x": "abc", "width": 2}, "ab", {"x", "width"}),
    ("🦉 [red]\0", {}, "🦉 [red]\0", set()),
]


@pytest.mark.parametrize(("template", "parameters", "name", "used"), FORMATS)
def test_a_template_is_filled_in(
    template: str, parameters: dict[str, Any], name: str, used: set[str]
) -> None:
    """All that format fields can do works, and it is known which parameters they use."""
    check(template)
    assert make(template, **parameters) == name
    assert used_by(template) == frozenset(used)
    assert is_fixed(template) == (not used)


WRONG_TEMPLATES: list[tuple[str, str]] = [
    ("{", "Single '{'"),
    ("50 }", "Single '}'"),
    ("{}", "positional"),
    ("{0}", "positional"),
    ("{x!q}", "conversion"),
    ("{x.}", "Empty attribute"),
    ("{x[}", "expected '}'"),
    ("{x!s:d}", "format code"),
    ("{x:{width:{lr}}}", "recursion"),
]


@pytest.mark.parametrize(("template", "said"), WRONG_TEMPLATES)
def test_a_malformed_template_is_refused(template: str, said: str) -> None:
    """At the definition, with the argument, the template and what is wrong in it."""
    with pytest.raises(
        DefinitionError, match=r"^flow 'f': flow_run_name='.*' is not a template: "
    ) as e:
        check(template)
    assert said in str(e.value)


@pytest.mark.parametrize("template", ["{y}", "{x} {y.a[0]}", "{x:>{y}}", "{ x }"])
def test_an_unknown_field_is_refused_with_the_known(template: str) -> None:
    """A slip of the pen is seen at once, also where it stands in a format."""
    with pytest.raises(DefinitionError, match=r"which is no parameter\. .*: 'x', 'lr', 'day'"):
        check(template)
    with pytest.raises(DefinitionError, match="Its parameters: none"):
        check_rule("task 't'", "task_run_name", template, iter(()))


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_name(before: str, text: str) -> None:
    """For any texts: braces written twice come out once, and values come out as they are."""
    template = before.replace("{", "{{").replace("}", "}}") + "{x}"
    check(template)
    assert make(template, x=text) == before + text


@given(st.text(alphabet="{}x.[]!:r0 ", max_size=12))
def test_a_checked_template_can_only_fail_by_its_values(template: str) -> None:
    """For any text: it is refused at the definition, or made a name or a `DefinitionError`, nothing else."""
    try:
        check(template)
    except DefinitionError:
        return
    with contextlib.suppress(DefinitionError):
        assert isinstance(make(template, **dict.fromkeys(KNOWN, "value")), str)


class Hostile:
    """Raises whenever somebody wants its text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("template", "value", "said"),
    [
        ("{x.name}", 1, "AttributeError: 'int' object has no attribute 'name'"),
        ("{x[3]}", [1], "IndexError: list index out of range"),
        ("{x[k]}", {}, "KeyError: 'k'"),
        ("{x:.3f}", "text", "ValueError: Unknown format code 'f'"),
        ("{x}", Hostile(), "RuntimeError: no text"),
    ],
)
def test_a_format_that_fails_names_the_rule(template: str, value: Any, said: str) -> None:
    """When the values do not have what the template wants, the error says so and keeps the cause."""
    check(template)
    with pytest.raises(
        DefinitionError, match=r"^flow 'f': flow_run_name='{x.*cannot be filled"
    ) as e:
        make(template, x=value)
    assert said in str(e.value)
    assert type(e.value.__cause__).__name__ == said.partition(":")[0]


def test_a_parameter_that_is_missing_is_named() -> None:
    """Values must be there for every field."""
    with pytest.raises(DefinitionError, match="KeyError: 'x'"):
        make("{x}")


# Callables ----------------------------------------------------------------------------------------------


def nothing() -> str:
    """Take no arguments."""
    return "nothing"


def all_of_them(parameters: dict[str, Any], separator: str = "-") -> str:
    """Take the parameters."""
    return separator.join(f"{key}{value}" for key, value in parameters.items())


def by_place(parameters: dict[str, Any], /) -> str:
    """Take the parameters, by place only."""
    return all_of_them(parameters)


def by_name(*, parameters: dict[str, Any]) -> str:
    """Take the parameters, by name only."""
    return all_of_them(parameters)


class Namer:
    """Can be called."""

    def __call__(self, parameters: dict[str, Any]) -> str:
        """Take the parameters."""
        return all_of_them(parameters)

    def method(self) -> str:
        """Take nothing."""
        return "method"


def with_prefix(prefix: str, parameters: dict[str, Any]) -> str:
    """Take the parameters, and something before them."""
    return prefix + all_of_them(parameters)


CALLABLES: list[tuple[Callable[..., Any], str, bool]] = [
    (nothing, "nothing", False),
    (lambda: "λ", "λ", False),
    (lambda *args, **kwargs: f"{args}{kwargs}", "(){}", False),
    (Namer().method, "method", False),
    (all_of_them, "x1-y2", True),
    (by_place, "x1-y2", True),
    (by_name, "x1-y2", True),
    (Namer(), "x1-y2", True),
    (functools.partial(with_prefix, "p-"), "p-x1-y2", True),
    (functools.partial(all_of_them, separator="+"), "x1+y2", True),
    (functools.partial(with_prefix, "p-", {}), "p-", False),
]


@pytest.mark.parametrize(("rule", "name", "takes"), CALLABLES)
def test_a_callable_makes_the_name(rule: Any, name: str, takes: bool) -> None:
    """Functions, partials and objects are called without arguments, or with the parameters."""
    check(rule)
    assert make(rule, x=1, y=2) == name
    assert used_by(rule) == (None if takes else frozenset())
    assert not is_fixed(rule)


def test_a_callable_cannot_change_the_parameters() -> None:
    """It gets a dict of its own."""
    parameters = {"x": 1}
    rule: Any = lambda parameters: str(parameters.pop("x"))  # noqa: E731  (as users write it)
    assert made("flow 'f'", "flow_run_name", rule, parameters) == "1"
    assert parameters == {"x": 1}


async def later() -> str:
    """Be a coroutine function."""
    return "later"


class Later:
    """Can be called, and is to be awaited."""

    async def __call__(self) -> str:
        """Be a coroutine function."""
        return "later"


WRONG_RULES: list[tuple[object, str]] = [
    (5, "must be a text or a function that returns one, not 5"),
    (None, "must be a text or a function that returns one, not None"),
    (["a"], "must be a text or a function"),
    (b"bytes", "must be a text or a function"),
    (lambda x: "", "wants an argument 'x'. It may want none, or one called 'parameters'"),
    (lambda parameters, lr: "", "wants an argument 'lr'"),
    (with_prefix, "='with_prefix' wants an argument 'prefix'"),
    (later, "='later' is an async function"),
    (Later(), "is an async function"),
    (functools.partial(later), "is an async function"),
    (max, "='max' does not tell its arguments"),
]


@pytest.mark.parametrize(("rule", "said"), WRONG_RULES)
def test_what_is_no_rule_is_refused(rule: object, said: str) -> None:
    """At the definition, with the argument and what it may be."""
    with pytest.raises(DefinitionError, match=r"^flow 'f': flow_run_name") as e:
        check(rule)
    assert said in str(e.value)


@pytest.mark.parametrize("result", [None, 5, b"bytes", ["a"]])
def test_what_is_no_text_is_no_name(result: Any) -> None:
    """What a callable returns must be a text; the error names the callable."""
    with pytest.raises(DefinitionError, match=f"must return a text.*'{type(result).__name__}'"):
        make(lambda: result)


def test_a_coroutine_is_no_name() -> None:
    """It is refused without a warning that nobody has awaited it."""
    with pytest.raises(DefinitionError, match="a 'coroutine'"):
        make(lambda: later())  # noqa: PLW0108  (one that does not show at the definition)


def test_what_a_callable_raises_goes_up() -> None:
    """The same exception, with a note that names the rule."""
    error = LookupError("of the user")

    def failing() -> str:
        raise error

    with pytest.raises(LookupError) as caught:
        make(failing)
    assert caught.value is error
    (note,) = error.__notes__
    assert "flow_run_name='test_what_a_callable_raises_goes_up.<locals>.failing'" in note
    assert "flow 'f'" in note


@pytest.mark.parametrize("rule", ["{x}", lambda parameters: parameters["x"]])
def test_a_name_has_its_limit(rule: Any) -> None:
    """A name of as many characters as there may be is taken, a longer one is refused."""
    assert len(make(rule, x="n" * MAX_NAME)) == MAX_NAME
    with pytest.raises(DefinitionError, match="has made a name of 10001 characters"):
        make(rule, x="n" * (MAX_NAME + 1))


def test_errors_stay_short() -> None:
    """A long template is shown by its beginning."""
    with pytest.raises(DefinitionError) as caught:
        check("x" * 100_000 + "{y}")
    assert len(str(caught.value)) < 500


def test_it_costs_little_on_workers() -> None:
    """Beside the standard library only errors are imported."""
    program = (
        "import sys\n"
        f"before = set(sys.modules)\nimport {names.__name__}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names))\n"
        "print(sorted(name for name in sys.modules if name.startswith('dflow')))\n"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    packages, modules = fresh.stdout.splitlines()
    assert packages == "['dflow']"
    assert modules == "['dflow', 'dflow.attempts', 'dflow.attempts.names', 'dflow.errors']"
