"""Digests of code: the same for the same code, in every process; another one when it has changed."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dflow.results.source import has_changed, source_digest


def made(text: str, name: str = "f") -> Callable[..., Any]:
    """Return a function from its text, of which there is no file."""
    scope: dict[str, Any] = {"wrapped": _wrapped}
    exec(text, scope)
    function: Callable[..., Any] = scope[name]
    return function


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def around(*args: Any) -> Any:
        return function(*args)

    return around


PLAIN = "def f(x, y=1):\n    def g(z):\n        return z + 1\n    return [g(v) for v in x] + [y]\n"
DOCUMENTED = '''

def f(x: "list[int]", y: int = 1) -> "list[int]":
    """Say what it does."""
    # and why
    def g(z):
        """Say more."""
        return (
            z + 1
        )

    return [g(v) for v in x] + [y]  # in one line
'''


def test_what_does_not_run_plays_no_part() -> None:
    """Comments, docstrings, annotations, blank lines and the place in the file change nothing."""
    assert source_digest(made(PLAIN)) == source_digest(made(DOCUMENTED))


@pytest.mark.parametrize(
    "other",
    [
        PLAIN.replace("z + 1", "z + 2"),
        PLAIN.replace("z + 1", "z - 1"),
        PLAIN.replace("y=1", "y=2"),
        PLAIN.replace("x, y=1", "x, *, y=1"),
        PLAIN.replace("def g(z)", "def g(z, w=0)"),
        PLAIN.replace("    return [", "    yield [", 1),
        "async " + PLAIN,
        "def f(x, y=1):\n    return (lambda z: z + 1)(x)\n",
        "def f(x, y=1):\n    try:\n        return x\n    except ValueError:\n        return y\n",
        "def f(x, y=1):\n    return y\n\ndef h():\n    pass\n",
    ],
)
def test_what_runs_counts(other: str) -> None:
    """Bodies, nested functions, defaults, parameters, and the kind of function count."""
    assert has_changed(source_digest(made(PLAIN)), source_digest(made(other)))


def test_lambdas_and_wrappers_count() -> None:
    """Of what is wrapped, bound or filled in, the code inside counts."""
    digests = [
        source_digest(lambda x: x + 1),
        source_digest(lambda x: x + 2),
        source_digest(_wrapped(made(PLAIN))),
        source_digest(_wrapped(made(PLAIN.replace("z + 1", "z + 2")))),
        source_digest(functools.partial(made(PLAIN), y=3)),
    ]
    assert len(set(digests)) == 5
    assert digests[4] == source_digest(made(PLAIN))
    assert source_digest(_Callable()) == source_digest(_Callable.__call__)


class _Callable:
    def __call__(self, x: int) -> int:
        return x


def test_what_is_unknown_has_not_changed() -> None:
    """What is unknown, or of another Python, has not changed."""
    known = source_digest(made(PLAIN))
    assert not has_changed("", known)
    assert not has_changed(known, "")
    assert not has_changed(known, "2.7-0123456789abcdef")
    assert has_changed(known, f"{known.partition('-')[0]}-0123456789abcdef")
    assert not has_changed(source_digest(len), source_digest(len))


def test_it_is_the_same_in_another_process() -> None:
    """Whatever the hash seed, and whether the code is from a file or not."""
    text = "def f(x):\n    return x in {'a', 'b', 'c', 4, None} and {'d': (1.5, b'e', ...)}\n"
    program = (
        "import sys; from dflow.results.source import source_digest; scope = {}; "
        "exec(sys.argv[1], scope); print(source_digest(scope['f']))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program, text],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {source_digest(made(text))}
