"""What the ledger takes and gives: claims on task runs, what changed, and orders that are the shell's own."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.records import FlowRun, TaskRun


class Release(do.Command, frozen=True):
    """Nobody needs the value of this dispatch any more."""

    dispatch: int


class LookUp(do.Command, frozen=True):
    """See whether the value is in the cache. Who is to `lead` computes it if it is not, and nobody else does.

    With `anew` it is computed whatever is there. `number` tells this question from others about the same task
    run.
    """

    number: int
    lead: bool
    anew: bool = False


class Claim(Struct, frozen=True):
    """Somebody in this process asked for a task run: it may be dispatched, to a runner or to its caller.

    `runner` tells runners apart. `follows` says that it takes a task run while its upstreams are still
    under way with it, `shares_memory` that a value costs nothing to leave there. Of all that are asked for
    together at most `max_in_flight` are out at once. What is `cached` is looked up before it goes.
    """

    runner: int
    here: bool = False
    follows: bool = False
    shares_memory: bool = True
    max_in_flight: int | None = None
    cached: frozenset[str] = frozenset()


@dataclass(slots=True)
class Changes:
    """What has changed since the last time: to be committed, then shown and acted on."""

    events: list[ev.Event]
    records: dict[str, TaskRun | FlowRun]
    orders: list[do.Command]
