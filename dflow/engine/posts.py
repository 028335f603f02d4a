"""What is posted to the tracker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from dflow.core import events as ev
from dflow.engine.claims import Claim
from dflow.engine.ledger import Ledger
from dflow.messages import HandleDropped, LogEntry, Storing


class Asked(Struct, frozen=True):
    """Task runs are asked for. Who acts on their commands is known once `accept` has been called."""

    event: ev.TaskCreated | ev.MapCreated
    claim: Claim
    handles: bool
    accept: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Do:
    """Something to do with the ledger, in the tracker's own thread."""

    action: Callable[[Ledger], Any]


@dataclass(slots=True)
class Committed:
    """Set `reached` once all that was posted before is `durable` and shown, or never will be."""

    reached: threading.Event = field(default_factory=threading.Event)
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """Call `then` when the time has come that is `due` now, however the time of day is set meanwhile."""

    due: float
    then: Callable[[], None]


Came = ev.Event | LogEntry | HandleDropped | Storing
"""What comes up from attempts."""


class News(Struct, frozen=True):
    """What has come up together."""

    came: Sequence[Came]


Post = Came | News | Asked | Do | Committed | Alarm
