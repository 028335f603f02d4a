"""The state machines as Mermaid diagrams, drawn from their tables. Nothing is drawn that is not in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dflow.core.flow_machine import FLOW_ROWS
from dflow.core.machine import ROWS


class _Edge(NamedTuple):
    """One row of a table, as far as a diagram shows it."""

    stage: str
    event: str
    target: str
    final: bool


def mermaid() -> str:
    """Return the state diagram of task runs."""
    edges = [_Edge(r.stage, r.event.__name__, r.target, r.target.final) for r in ROWS]
    return _draw("TaskCreated", edges)


def flow_mermaid() -> str:
    """Return the state diagram of flow runs."""
    edges = [_Edge(r.stage, r.event.__name__, r.target, r.target.final) for r in FLOW_ROWS]
    return _draw("FlowRunCreated", edges)


def _draw(creation: str, edges: Sequence[_Edge]) -> str:
    """Return a diagram with one arrow per (stage, target), in the order of the table.

    The stage of the first edge is where a run begins.
    """
    events: dict[tuple[str, str], dict[str, None]] = {}
    for edge in edges:
        events.setdefault((edge.stage, edge.target), {})[edge.event] = None
    finals = dict.fromkeys(edge.target for edge in edges if edge.final)
    lines = [
        "stateDiagram-v2",
        f"    [*] --> {edges[0].stage}: {creation}",
        *(f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in events.items()),
        *(f"    {stage} --> [*]" for stage in finals),
    ]
    return "\n".join(lines) + "\n"
