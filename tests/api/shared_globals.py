"""A module whose tasks share a global."""

from __future__ import annotations

from dflow import task

remembered: str | None = None


@task
def remember(value: str) -> str | None:
    """Set the global, and return what it was."""
    global remembered
    before, remembered = remembered, value
    return before


@task
def recall() -> str | None:
    """Return the global."""
    return remembered
