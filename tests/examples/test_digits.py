"""The example with the digits: its pieces, and the whole with a small grid."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

import dflow
from dflow import runs
from dflow.errors import EnvironmentProblem
from dflow.examples import digits as example


@pytest.fixture(autouse=True)
def _shutdown() -> Iterator[None]:
    yield
    dflow.shutdown()


def test_nothing_held_out_is_learnt_from() -> None:
    """The parts are disjoint, complete, and the same for the same seed."""
    known, held_out = example.load.fn(0)
    assert (len(known.labels), len(held_out.labels)) == (1437, 360)
    again, _ = example.load.fn(0)
    other, _ = example.load.fn(1)
    assert np.array_equal(known.images, again.images)
    assert not np.array_equal(known.images, other.images)


def test_folds_cover_everything_once() -> None:
    """Each row is judged by in exactly one fold, and not learnt from in that fold."""
    data = example.load.fn(0)
    folds = example.split.fn(data, 5, 0)
    judged = np.concatenate([validation for _, validation in folds])
    assert sorted(judged) == list(range(len(data[0].labels)))
    assert all(not set(training) & set(validation) for training, validation in folds)


def test_scaling_knows_the_training_part_only() -> None:
    """The training part of a fold has mean 0 by its own scale; the validation part has not."""
    data = example.load.fn(0)
    fold = example.preprocess.fn(data, example.split.fn(data, 5, 0)[0])
    assert np.allclose(fold.training.images.mean(axis=0), 0.0)
    assert not np.allclose(fold.validation.images.mean(axis=0), 0.0)


def test_the_grid_is_worth_a_cluster() -> None:
    """On five folds it is at least 60 task runs, of several kinds of model, each with its own name."""
    names = {example.describe(configuration) for configuration in example.GRID}
    assert len(names) == len(example.GRID)
    assert len(example.GRID) * 5 >= 60
    assert {kind for kind, _ in example.GRID} == set(example.KINDS)


@pytest.mark.parametrize("runner", ["threads", "inline"])
def test_the_flow_finds_the_best(runner: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With three configurations it reports the best, prints the table, and gives the same each time."""
    flow = example.digits.with_options(task_runner=runner)
    report = flow(folds=3, configurations=3)
    assert report == flow(folds=3, configurations=3)
    assert report.configurations == 3
    assert report.best in capsys.readouterr().out
    assert report.validation_accuracy > 0.9
    assert report.test_accuracy > 0.9


def test_scores_are_kept() -> None:
    """Scores and the rows of the folds are in the journal: a resumed run does not compute them again."""
    example.digits.with_options(task_runner="inline")(folds=3, configurations=2)
    with runs.opened(runs.find("latest")) as reader:
        kept = {run.task_name for run in reader.task_runs() if run.held == "journal"}
    assert {"split", "score", "test"} <= kept


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-learn the error says what to install."""
    monkeypatch.delitem(sys.modules, "dflow.examples.digits")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'dflow-dask\[demo\]'"):
        __import__("dflow.examples.digits")
