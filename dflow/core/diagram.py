"""The state machines as Mermaid diagrams, drawn from their tables. Nothing is drawn that is not in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dflow.core.flow_machine import FLOW_ROWS
from dflow.core.machine import ROWS
from dflow.core.records import FlowStage, Stage


class _Edge(NamedTuple):
    """One row of a table, as far as a diagram shows it."""

    stage: str
    event: str
    target: str
    final: bool


def mermaid() -> str:
    """Return the state diagram of task runs."""
    edges = [_Edge(r.stage, r.event.__name__, r.target, r.target.final) for r in ROWS]
    return _draw(
        {Stage.WAITING: "TaskCreated, MapCreated", Stage.DISPATCHED: "the same, ready"}, edges
    )


def flow_mermaid() -> str:
    """Return the state diagram of flow runs."""
    edges = [_Edge(r.stage, r.event.__name__, r.target, r.target.final) for r in FLOW_ROWS]
    return _draw({FlowStage.PENDING: "FlowRunCreated"}, edges)


def _draw(creations: Mapping[str, str], edges: Sequence[_Edge]) -> str:
    """Return a diagram with one arrow per (stage, target), in the order of the table.

    `creations` are the stages in which runs begin, and by which event.
    """
    events: dict[tuple[str, str], dict[str, None]] = {}
    for edge in edges:
        events.setdefault((edge.stage, edge.target), {})[edge.event] = None
    finals = dict.fromkeys(edge.target for edge in edges if edge.final)
    lines = [
        "stateDiagram-v2",
        *(f"    [*] --> {stage}: {creation}" for stage, creation in creations.items()),
        *(f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in events.items()),
        *(f"    {stage} --> [*]" for stage in finals),
    ]
    return "\n".join(lines) + "\n"
