"""Attempts in the calling thread: for debugging, and for tasks that are not worth a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dflow.attempts import body
from dflow.core.events import AttemptSucceeded
from dflow.messages import Down, Key, Work
from dflow.ports import Host, Link
from task_runners.values import Values

WORKER = "inline"
"""What attempts that run in the calling thread name as their worker."""


@dataclass(frozen=True, slots=True)
class InlineTaskRunner:
    """Runs each task in the thread that submits it, before `submit` returns.

    Example:
        >>> InlineTaskRunner() == InlineTaskRunner()
        True
    """

    def open(self, host: Host) -> OpenInline:
        """Start to work for a flow run."""
        return OpenInline(host)

    def shutdown(self) -> None:
        """Do nothing: nothing is shared."""

    def describe(self) -> Mapping[str, Any]:
        """Return the kind of this runner."""
        return {"kind": "inline"}


class OpenInline:
    """Runs bodies there and then."""

    shares_memory = True
    follows = False
    runs_here = True

    def __init__(self, host: Host) -> None:
        self._host = host
        self._values = Values()

    def pack(self, call: Any) -> Any:
        """Return the call itself."""
        return call

    def dispatch(self, works: Sequence[Work]) -> None:
        """Run the bodies, one after the other. KeyboardInterrupt goes through: it is the user's."""
        for work in works:
            link = self._host.link(work.info)
            outcome, value = body.run(
                work.info,
                partial(self._load, work, link),
                link,
                worker=WORKER,
                interrupts=True,
            )
            if isinstance(outcome, AttemptSucceeded):
                self._values.keep(work.info.key, value)
            self._host.news([outcome])

    def _load(self, work: Work, link: Link) -> tuple[Any, Mapping[str, Any]]:
        return work.call, self._values.of(work, link)

    def withdraw(self, keys: Sequence[Key]) -> None:
        """Do nothing: nothing waits here."""

    def stop(self, keys: Sequence[Key]) -> None:
        """Do nothing: who could ask is busy running the body."""

    def release(self, keys: Sequence[Key]) -> None:
        """Let go of values."""
        self._values.release(keys)

    def fetch(self, key: Key) -> Any:
        """Return a value. Raises `MissingResult`."""
        return self._values.fetch(key)

    def tell(self, key: Key, message: Down) -> None:
        """Do nothing: the link of an attempt in this process belongs to the engine, and hears it there."""

    def apply(self, function: Callable[[Any], Any], key: Key) -> Any:
        """Return what a function makes of a value. Raises `MissingResult`."""
        return function(self._values.fetch(key))

    def fetch_each(self, _keys: Sequence[Key]) -> Mapping[Key, Any]:
        """Return nothing: each value is at hand."""
        return {}

    def each_host(self, _function: Callable[..., Any], *_args: Any) -> Mapping[str, Any]:
        """Return nothing: bodies run in this process."""
        return {}

    def close(self) -> None:
        """Let go of all values."""
        self._values.clear()
