"""Contents: what stands for values that have no fingerprint, in every process, and never for another value."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from dflow.results import contents
from dflow.results.contents import content
from dflow.results.fingerprints import NoFingerprint, fingerprint


class Model:
    """A class of which no fingerprint is known."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


def test_what_has_a_fingerprint_keeps_it() -> None:
    """There is one form for what has a canonical one."""
    assert content({"a": [1, 2.0]}) == fingerprint({"a": [1, 2.0]})
    with pytest.raises(NoFingerprint):
        fingerprint(Model(a=1))


def test_equal_content_gives_equal_bytes() -> None:
    """What is shared inside, and a way through a pickle, play no part."""
    name = "".join(["sha", "red"])
    one = Model(names=[name, name], tags={"a", "b", "c"}, data=np.arange(5), call=len)
    two = Model(
        names=["shared", "".join(["shar", "ed"])], tags={"c", "b", "a"}, data=np.arange(5), call=len
    )
    assert content(one) == content(two) == content(pickle.loads(pickle.dumps(one)))


@pytest.mark.parametrize(
    "others",
    [
        [Model(), Model(a=1), Model(a=2), Model(a=1, b=1), Model(b=1), Model(a=[1]), Model(a=(1,))],
        [Model(a=np.arange(3)), Model(a=np.arange(3.0)), Model(a=np.arange(4))],
        [Model(a={1, 2}), Model(a={1, 3}), Model(a=frozenset({1, 2})), Model(a=[1, 2])],
        [lambda x: x + 1, lambda x: x + 2, lambda x, y=1: x + 1, lambda x, y=2: x + 1],
        [(lambda n: lambda: n)(1), (lambda n: lambda: n)(2)],
        [Model(a=len), Model(a=print), Model(a=int), Model(a=np)],
    ],
)
def test_other_content_gives_other_bytes(others: list[Any]) -> None:
    """No two of them are taken for each other."""
    assert len({content(value) for value in others}) == len(others)


def _cyclic() -> Model:
    model = Model()
    model.itself = model  # type: ignore[attr-defined]  # it has whatever it is given
    return model


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(),
        (n for n in [1]),
        object(),
        _cyclic(),
        Model(a=object()),
        type("Local", (), {})(),
    ],
    ids=["lock", "generator", "object", "cycle", "inside", "class without a name"],
)
def test_what_cannot_be_told_has_no_content(value: Any) -> None:
    """Nothing is guessed."""
    with pytest.raises(NoFingerprint):
        content(value)


def test_what_is_very_large_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pickle is not made to the end."""
    monkeypatch.setattr(contents, "LIMIT", 10_000)
    assert content(Model(a=bytes(9_000)))
    with pytest.raises(NoFingerprint, match="more than"):
        content(Model(a=bytes(20_000)))


def test_it_is_the_same_in_another_process() -> None:
    """Whatever the hash seed."""
    program = (
        "from tests.results.test_contents import Model; from dflow.results.contents import content; "
        "print(content(Model(a={'x', 'y', 'z', 1}, b=lambda v: v in {'p', 'q'})).hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
