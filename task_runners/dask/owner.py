"""What the feed keeps of one owner of work: what is to be told of it, and the last batches that were told."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RING = 8_000_000
"""How many bytes of batches are kept that were sent: what a driver heard a moment before it died."""
ALONE = 64_000_000
"""How many bytes are kept while there is no driver."""
WEIGHT = 100
"""What a piece of news counts for, in bytes."""


@dataclass(slots=True, eq=False)
class Owner:
    """One flow run's work: by whom it is driven, and what is to be told of it."""

    name: str
    run: str
    lease: float
    driver: str | None = None
    since: float = 0.0
    number: int = 0
    news: list[Any] = field(default_factory=list)
    letters: list[Any] = field(default_factory=list)
    ring: deque[tuple[int, Mapping[str, Any]]] = field(default_factory=deque)
    kept: int = 0
    keys: set[Any] = field(default_factory=set)
    open: set[Any] = field(default_factory=set)
    flush: Any = None
    timer: Any = None
    window: float = 0.0
    sent: int = 0

    def next_batch(self, sent: bool) -> Mapping[str, Any]:
        """Return all that is noted as the next batch, and keep it for a time."""
        self.number += 1
        self.sent += 1
        batch = {
            "number": self.number,
            "news": self.news,
            "letters": self.letters,
            "sent": sent,
        }
        self.news, self.letters = [], []
        self.ring.append((self.number, batch))
        self.kept += _weight(batch)
        most = RING if self.driver is not None else ALONE
        while self.kept > most and len(self.ring) > 1:
            self.kept -= _weight(self.ring.popleft()[1])
        return batch


def _weight(batch: Mapping[str, Any]) -> int:
    return WEIGHT * len(batch["news"]) + sum(len(data) for *_, data in batch["letters"])
