"""Who still needs which value: futures that may ask for it, and unfinished task runs that take it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dflow.core.records import Need, Upstream


def takes(upstreams: Sequence[Upstream]) -> list[Upstream]:
    """Return the upstreams whose values are taken, or their exceptions if they may fail."""
    return [upstream for upstream in upstreams if upstream.need is not Need.WAIT]


class Needs:
    """Counts, for each task run, the futures of it and the unfinished task runs that depend on it."""

    def __init__(self) -> None:
        self._handles: dict[str, int] = {}
        self._consumers: dict[str, int] = {}
        self._upstreams: dict[str, Sequence[Upstream]] = {}

    def needed(self, task_run_id: str) -> bool:
        """Tell whether anybody needs the value of a task run."""
        return task_run_id in self._handles or task_run_id in self._consumers

    def take_handles(self, task_run_ids: Iterable[str]) -> None:
        """Note one more future of each of these task runs."""
        for task_run_id in task_run_ids:
            _more(self._handles, task_run_id)

    def drop_handle(self, task_run_id: str) -> None:
        """Note that one future of a task run is gone."""
        _less(self._handles, task_run_id)

    def set_upstreams(self, task_run_id: str, upstreams: Sequence[Upstream]) -> list[str]:
        """Note what an unfinished task run needs, in place of what it needed; nothing once it is final.

        Return the task runs that it needs no more, or still does.
        """
        before = self._upstreams.get(task_run_id, ())
        if upstreams is before or upstreams == before:
            return []
        for upstream in upstreams:
            _more(self._consumers, upstream.task_run_id)
        for upstream in before:
            _less(self._consumers, upstream.task_run_id)
        if upstreams:
            self._upstreams[task_run_id] = upstreams
        else:
            del self._upstreams[task_run_id]
        return [upstream.task_run_id for upstream in before]


def _more(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1


def _less(counts: dict[str, int], key: str) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
