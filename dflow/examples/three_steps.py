"""Preprocess, train, evaluate: three tasks, called directly. Run it with ``python three_steps.py``."""

from __future__ import annotations

from dflow import flow, task

Points = list[tuple[float, float]]


@task
def preprocess(raw: Points) -> Points:
    """Scale x and y to the range from 0 to 1."""
    width, height = max(x for x, _ in raw), max(y for _, y in raw)
    print(f"preprocess: {len(raw)} points")
    return [(x / width, y / height) for x, y in raw]


@task
def train(points: Points) -> float:
    """Fit a line through the origin, and return its slope."""
    slope = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    print(f"train: slope {slope:.3f}")
    return slope


@task
def evaluate(slope: float, points: Points) -> float:
    """Return the mean distance of the points from the line."""
    error = sum(abs(slope * x - y) for x, y in points) / len(points)
    print(f"evaluate: mean error {error:.3f}")
    return error


@flow
def three_steps(count: int = 100) -> float:
    """Fit a line to `count` points, and return how far they are from it."""
    raw = [(float(x), 2.0 * x + 5.0 * (x % 3)) for x in range(1, count + 1)]
    points = preprocess(raw)
    return evaluate(train(points), points)


if __name__ == "__main__":
    three_steps()
