"""Which model reads handwritten digits best?

Some of scikit-learn's digits are held out. On the rest, every configuration is trained and judged on every
fold, all at once; the best by its mean validation accuracy is trained again on all of them, and tested, once,
on the digits that were held out.

Scores are small: they are kept in the journal, and a run that was interrupted does not compute them again.
Images and models are large: they stay on the workers.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow import flow, get_run_logger, task, unmapped
from dflow.errors import EnvironmentProblem

try:
    from sklearn import datasets, model_selection
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
except ImportError as error:
    raise EnvironmentProblem(
        "This example needs scikit-learn. Install it with: pip install 'dflow-dask[demo]'"
    ) from error

Array = np.ndarray[Any, Any]
Configuration = tuple[str, dict[str, Any]]
"""The kind of a model, and its hyper-parameters."""

KINDS: dict[str, Callable[[int], Any]] = {
    "forest": lambda seed: RandomForestClassifier(n_estimators=100, random_state=seed),
    "knn": lambda _: KNeighborsClassifier(),
    "logistic": lambda seed: LogisticRegression(max_iter=1000, random_state=seed),
    "mlp": lambda seed: MLPClassifier(max_iter=500, random_state=seed),
    "svc": lambda seed: SVC(random_state=seed),
}
GRID: list[Configuration] = [
    *[("knn", {"n_neighbors": k}) for k in (1, 3, 5, 9)],
    *[("logistic", {"C": c}) for c in (0.01, 0.1, 1.0)],
    *[("svc", {"C": c, "gamma": gamma}) for c in (1.0, 10.0) for gamma in (0.003, 0.01, 0.03)],
    *[("forest", {"max_depth": depth}) for depth in (5, 10, None)],
    *[("mlp", {"hidden_layer_sizes": (n,)}) for n in (16, 32)],
]
"""What is tried."""


@dataclass(frozen=True)
class Digits:
    """Images, one row of 64 grey values each, and the digits that they show."""

    images: Array
    labels: Array

    def some(self, rows: Array) -> Digits:
        """Return those in the given rows."""
        return Digits(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class Fold:
    """What one part of the cross-validation works with: a part to learn from, another to judge by."""

    training: Digits
    validation: Digits


@dataclass(frozen=True)
class Report:
    """What the flow found out. Accuracies are shares of 1."""

    best: str
    validation_accuracy: float
    test_accuracy: float
    configurations: int


@task(log_prints=True)
def load(seed: int) -> tuple[Digits, Digits]:
    """Return the digits to learn from, and those that are held out for the test."""
    images, labels = datasets.load_digits(return_X_y=True)
    parts = model_selection.train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=seed
    )
    print(f"{len(labels)} digits, {len(parts[1])} of them held out for the test")
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])


@task
def split(data: tuple[Digits, Digits], folds: int, seed: int) -> list[tuple[Array, Array]]:
    """Return, for each fold, the rows to learn from and the rows to judge by."""
    known, _ = data
    splitter = model_selection.StratifiedKFold(folds, shuffle=True, random_state=seed)
    pairs = splitter.split(known.images, known.labels)
    return [(training.astype(np.int16), rest.astype(np.int16)) for training, rest in pairs]


@task(log_prints=True)
def preprocess(data: tuple[Digits, Digits], rows: tuple[Array, Array]) -> Fold:
    """Scale the images of one fold, with what its own training part alone tells of their scale."""
    training, validation = (data[0].some(part) for part in rows)
    scaler = StandardScaler().fit(training.images)
    print(f"{len(training.labels)} digits to learn from, {len(validation.labels)} to judge by")
    return Fold(
        Digits(scaler.transform(training.images), training.labels),
        Digits(scaler.transform(validation.images), validation.labels),
    )


def make(configuration: Configuration, seed: int) -> Any:
    """Return a model that has learnt nothing yet."""
    kind, parameters = configuration
    return KINDS[kind](seed).set_params(**parameters)


@task(retries=1)
def score(configuration: Configuration, fold: Fold, seed: int) -> float:
    """Train one configuration on one fold, and return its accuracy on the validation part."""
    model = make(configuration, seed).fit(fold.training.images, fold.training.labels)
    return float(model.score(fold.validation.images, fold.validation.labels))


@task
def refit(configuration: Configuration, data: tuple[Digits, Digits], seed: int) -> Any:
    """Train the best configuration on all that is not held out; scaling belongs to the model."""
    known, _ = data
    model = make_pipeline(StandardScaler(), make(configuration, seed))
    get_run_logger().info("training %s on %d digits", describe(configuration), len(known.labels))
    return model.fit(known.images, known.labels)


@task
def test(model: Any, data: tuple[Digits, Digits]) -> float:
    """Return the accuracy on the digits that were held out."""
    _, held_out = data
    return float(model.score(held_out.images, held_out.labels))


def describe(configuration: Configuration) -> str:
    """Return a configuration as people write it."""
    kind, parameters = configuration
    return " ".join([kind, *(f"{name}={value}" for name, value in parameters.items())])


def table(results: list[tuple[Configuration, list[float]]], tested: float) -> str:
    """Return what came out as a table, the best configuration first."""
    lines = [f"{'configuration':<32} {'mean':>6}   std"]
    lines += [
        f"{describe(configuration):<32} {statistics.mean(scores):6.4f} ± {statistics.stdev(scores):6.4f}"
        for configuration, scores in results
    ]
    return "\n".join(["", *lines, "", f"The best one on the digits held out: {tested:.4f}", ""])


@flow(task_runner="dask")
def digits(folds: int = 5, seed: int = 0, configurations: int = len(GRID)) -> Report:
    """Find the model that reads handwritten digits best.

    Args:
        folds: how many folds the cross-validation has, 2 or more
        seed: decides the splits and the luck of the models; the same seed gives the same result
        configurations: how many of the configurations are tried
    """
    logger = get_run_logger()
    grid = GRID[: max(1, configurations)]
    data = load.submit(seed)
    rows = split.submit(data, folds, seed)
    prepared = preprocess.map(unmapped(data), rows)

    logger.info("%d configurations on %d folds", len(grid), folds)
    scores = score.map(
        [configuration for configuration in grid for _ in prepared],
        [fold for _ in grid for fold in prepared],
        unmapped(seed),
    ).result()

    per_fold = [scores[at : at + folds] for at in range(0, len(scores), folds)]
    results = sorted(zip(grid, per_fold, strict=True), key=lambda r: -statistics.mean(r[1]))
    best, accuracy = results[0][0], statistics.mean(results[0][1])
    logger.info("the best is %s, with a mean accuracy of %.4f", describe(best), accuracy)

    tested = test.submit(refit.submit(best, data, seed), data).result()
    print(table(results, tested))
    return Report(describe(best), round(accuracy, 4), round(tested, 4), len(grid))


if __name__ == "__main__":
    print(digits())
