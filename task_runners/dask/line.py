"""What the ways to a cluster have in common: a client, and to whom news of it go."""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distributed import Client

from task_runners.dask.carried import OfItem
from task_runners.dask.graph import Draft
from task_runners.dask.parcels import DaskKey
from task_runners.dask.reader import Reader

Post = Callable[[Callable[[], None]], None]
"""Makes a call in the thread that owns the book."""


@dataclass(frozen=True, slots=True)
class Line:
    """A client of a cluster, for one flow run.

    `foreign` tells that the cluster is not ours, `local` that its workers are threads of this process.
    """

    client: Client
    post: Post
    reader: Reader
    run: str
    foreign: bool
    local: bool
    topics: list[str] = field(default_factory=list)

    def listen(self, topic: str, handler: Callable[[Any], None]) -> None:
        """Have a handler called, in the client's thread, with what is logged to a topic."""
        self.client.subscribe_topic(topic, handler)
        self.topics.append(topic)

    def in_loop(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function, or coroutine function, in the client's thread."""
        loop: Any = self.client.loop
        with contextlib.suppress(RuntimeError):  # the loop has ended: all is lost, and soon seen
            loop.add_callback(function, *args)


class Way(Protocol):
    """A way of having work done under keys, and of hearing what becomes of it."""

    @property
    def alive(self) -> bool:
        """Whether the scheduler is there, and knows of this work."""

    def submit(self, draft: Draft, annotations: Mapping[str, Any]) -> None:
        """Hand a graph to Dask, hold all its keys, and tell what becomes of them."""

    def status(self, key: DaskKey) -> str:
        """Return pending, finished, error, lost or cancelled; cancelled too for a key that is not held."""

    def release(self, keys: Sequence[DaskKey], *, light: bool = False) -> None:
        """Let go of keys: of `light` ones, whose values came with their outcomes, there is no hurry."""

    def gather(self, key: DaskKey) -> Any:
        """Return what a key holds. Raises whatever Dask raises, KeyError for a key that is not held."""

    def gather_each(self, keys: Sequence[DaskKey]) -> Mapping[DaskKey, Any]:
        """Return what those of several keys hold that can be gathered in one go; raises nothing."""

    def apply(self, function: OfItem, key: DaskKey) -> Any:
        """Return what a function makes of a value, on the cluster. Raises whatever that raises."""

    def recover(self, ticket: int, key: DaskKey) -> None:
        """Ask for the outcome that came with a value."""

    async def leave(self) -> bool:
        """Let go of what the scheduler keeps for the run, in the client's thread; False if it is not ours."""

    def close(self) -> None:
        """Let go of everything that is left."""
