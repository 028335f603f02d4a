"""Numbered batches of several senders, put back in order: each once, with what is missing known."""

from __future__ import annotations


class Sequences:
    """Batches by sender, numbered from 1."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        self._early: dict[str, dict[int, bytes]] = {}

    @property
    def gap(self) -> bool:
        """Whether a batch has come before one that it follows."""
        return any(self._early.values())

    def keep(self, sender: str, number: int, data: bytes) -> None:
        """Keep a batch until its turn; one that was there already changes nothing."""
        if number >= self._next.setdefault(sender, 1):
            self._early.setdefault(sender, {})[number] = data

    def take(self, sender: str, number: int, data: bytes) -> list[bytes]:
        """Keep a batch; return those of its sender whose turn it is now."""
        self.keep(sender, number, data)
        return self._in_turn(sender)

    def skip(self) -> tuple[int, list[bytes]]:
        """Give up on what is missing: return how many batches that is, and what came after them."""
        lost = 0
        found: list[bytes] = []
        for sender, early in self._early.items():
            found += self._in_turn(sender)
            while early:
                lost += min(early) - self._next[sender]
                self._next[sender] = min(early)
                found += self._in_turn(sender)
        return lost, found

    def _in_turn(self, sender: str) -> list[bytes]:
        early = self._early.get(sender, {})
        found = []
        while (number := self._next[sender]) in early:
            found.append(early.pop(number))
            self._next[sender] = number + 1
        return found
