"""What a line of the benchmarks is, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.benchmarks.bench import Bench


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of a line, as text, and whether its target is met: None where there is no target."""

    dflow: str
    dask: str = "–"
    figure: str = ""
    met: bool | None = None
    note: str = ""
    memory: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """A line: `work` says what is measured, `run` measures it."""

    name: str
    work: str
    target: str
    run: Callable[[Bench], Result]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A line and what came of it: a result, or what went wrong. `broken` are invariants that did not hold."""

    name: str
    result: Result | None = None
    error: str = ""
    runs: int = 0
    task_runs: int = 0
    broken: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether it was measured, and every invariant holds."""
        return self.result is not None and not self.broken

    @property
    def verdict(self) -> str:
        """What is to be said of the target."""
        if self.result is None:
            return "FAILED"
        if self.broken:
            return "BROKEN"
        return {True: "met", False: "missed", None: ""}[self.result.met]


def parsed(data: dict[str, Any]) -> Outcome:
    """Return an outcome from the fields that a child process printed."""
    result = data.pop("result")
    return Outcome(**data, result=None if result is None else Result(**result))


# Figures -------------------------------------------------------------------------------------------


def time_of(seconds: float) -> str:
    """Return seconds in a unit that suits them."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1.0 else f"{seconds:.2f} s"


def size_of(size: float) -> str:
    """Return bytes in a unit that suits them."""
    if abs(size) < 10_000:
        return f"{size / 1e3:.2f} kB"
    return f"{size / 1e3:.0f} kB" if abs(size) < 1e6 else f"{size / 1e6:.0f} MB"
