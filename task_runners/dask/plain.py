"""The plain way to a cluster, by Dask's public interface alone: work is held by futures of a client.

It ends with the client's connection. It is taken where the other way, `owned`, finds that something is
missing that it relies on.
"""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from dask.base import annotate
from distributed import Future, as_completed

from dflow.attempts.link import open_batch
from task_runners.dask import internals, names, placements
from task_runners.dask.carried import OfItem, applied, outcome_of
from task_runners.dask.graph import Draft
from task_runners.dask.line import Line
from task_runners.dask.parcels import DaskKey
from task_runners.dask.sequence import Sequences

_log = logging.getLogger("dflow.runners")


class Plain:
    """Holds the futures of one flow run, and listens to the topics on which workers and scheduler log."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._client = line.client
        self._sequences = Sequences()
        self._futures: dict[DaskKey, Future] = {}
        self._topic = names.letters_topic(line.run)
        if not line.local:
            line.listen(self._topic, self._on_batch)
        if line.foreign:
            line.listen("all", self._on_scheduler_event)

    @property
    def alive(self) -> bool:
        """Whether the scheduler is there."""
        return bool(self._client.status == "running")

    # Out --------------------------------------------------------------------------------------------

    def submit(self, draft: Draft, annotations: Mapping[str, Any]) -> None:
        """Hand a graph to Dask, hold all its keys, and begin to watch its dispatches."""
        keys = list(draft.graph)
        with annotate(**annotations):
            found = self._client.get(draft.graph, keys, sync=False)
        self._futures.update(zip(keys, found, strict=True))
        self._line.in_loop(self._watch, [self._futures[each.dask_key] for each in draft.parcels])

    def status(self, key: DaskKey) -> str:
        """Return pending, finished, error, lost or cancelled; cancelled too for a key that is not held."""
        future = self._futures.get(key)
        return "cancelled" if future is None else str(future.status)

    def release(self, keys: Sequence[DaskKey], *, light: bool = False) -> None:  # noqa: ARG002  (of `Way`)
        """Let go of keys."""
        for key in keys:
            future = self._futures.pop(key, None)
            if future is not None:
                future.release()

    def gather(self, key: DaskKey) -> Any:
        """Return what a key holds. Raises whatever Dask raises, KeyError for a key that is not held."""
        return self._client.gather(self._futures[key])

    def gather_each(self, keys: Sequence[DaskKey]) -> Mapping[DaskKey, Any]:
        """Return what those of several keys hold that can be gathered in one go; raises nothing."""
        there = {key: self._futures[key] for key in keys if self.status(key) == "finished"}
        try:
            found: dict[DaskKey, Any] = self._client.gather(there, errors="skip")
        except Exception:
            _log.debug("Values could not be gathered in one go.", exc_info=True)
            return {}
        return {key: value for key, value in found.items() if value is not None}

    def apply(self, function: OfItem, key: DaskKey) -> Any:
        """Return what a function makes of a value, on the cluster. Raises whatever that raises."""
        held = self._futures[key]
        return self._client.submit(
            applied, function, held, pure=False, priority=placements.FIRST
        ).result()

    def recover(self, ticket: int, key: DaskKey) -> None:
        """Ask for the outcome that came with a value."""
        self._line.in_loop(self._ask_outcome, ticket, self._futures.get(key))

    async def leave(self) -> bool:
        """Let the scheduler forget the topic."""
        await self._client.run_on_scheduler(internals.forget_topic, self._topic)
        return True

    def close(self) -> None:
        """Let go of all keys."""
        self.release(list(self._futures))

    # In, in the client's thread -----------------------------------------------------------------------

    async def _watch(self, futures: Sequence[Future]) -> None:
        async for future in as_completed(futures, loop=self._client.loop):
            await self._look(future)

    async def _look(self, future: Future) -> None:
        key: Any = future.key
        ticket: int = key[1]
        told, post = self._line.reader, self._line.post
        match future.status:
            case "finished":
                post(lambda: told.finished(ticket))
            case "error":
                error = await future.exception()
                post(lambda: told.erred(ticket, error))
            case "cancelled":
                reason = await _reason(future)
                post(lambda: told.cancelled(ticket, reason))
            case _:  # it was finished, and is being computed again already
                self._line.in_loop(self._watch, [future])

    async def _ask_outcome(self, ticket: int, future: Future | None) -> None:
        data: bytes | None = None
        with contextlib.suppress(Exception):
            asked = self._client.submit(outcome_of, future, pure=False, priority=placements.FIRST)
            data = await asked
        self._line.post(lambda: self._line.reader.recovered(ticket, data))

    def _on_batch(self, event: tuple[float, dict[str, Any]]) -> None:
        _, batch = event
        self._line.post(lambda: self._take(batch))

    def _on_scheduler_event(self, event: tuple[float, Any]) -> None:
        _, news = event
        if isinstance(news, dict) and news.get("action") == "remove-worker":
            keys = list(news.get("processing-tasks", ()))
            worker, expected = news["worker"], bool(news.get("expected"))
            self._line.post(lambda: self._line.reader.removed(worker, keys, expected))

    # In, in the thread that owns the book ---------------------------------------------------------------

    def _take(self, batch: Mapping[str, Any]) -> None:
        """Take a batch in its turn; fetch what is missing between it and the last one."""
        for data in self._sequences.take(batch["station"], batch["number"], batch["data"]):
            self._line.reader.letters(open_batch(data))
        if self._sequences.gap:
            self._line.in_loop(self._replay)

    async def _replay(self) -> None:
        events: Sequence[tuple[float, dict[str, Any]]] = ()
        with contextlib.suppress(Exception):
            events = await self._client.get_events(self._topic)
        self._line.post(lambda: self._retake([batch for _, batch in events]))

    def _retake(self, batches: Sequence[Mapping[str, Any]]) -> None:
        for batch in batches:
            self._sequences.keep(batch["station"], batch["number"], batch["data"])
        lost, found = self._sequences.skip()
        if lost:
            _log.warning("%d messages of workers were lost on their way.", lost)
        for data in found:
            self._line.reader.letters(open_batch(data))


async def _reason(future: Future) -> str:
    try:
        await future.result()
    except BaseException as error:
        return str(getattr(error, "reason", "") or "")
    return ""
