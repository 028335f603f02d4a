"""From commands to work: what a session has in the hands of its runners.

Everything here runs in the tracker's thread, after the commands are durable, but for `carry`, `work` and
`info`, which the threads that run bodies themselves use too.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dflow.attempts.capture import capture
from dflow.attempts.context import FlowInfo
from dflow.attempts.failures import Failure
from dflow.core import commands as do
from dflow.core import events as ev
from dflow.core.records import Held, Need, Stage, TaskRun, Upstream
from dflow.core.values import CacheAs
from dflow.engine.claims import LookUp, Release
from dflow.engine.needs import takes
from dflow.engine.waiting import Inlet
from dflow.errors import InternalError, MissingResult
from dflow.messages import (
    AtRunner,
    AttemptInfo,
    Blob,
    CallOptions,
    Go,
    Here,
    Input,
    Kept,
    Key,
    SharedInfo,
    Work,
)
from dflow.ports import OpenRunner

if TYPE_CHECKING:
    from dflow.engine.session import Session


NO_INPUTS: Mapping[str, Input] = {}
"""What most task runs of large maps take of others, one for all of them."""


class Asking(Struct, frozen=True):
    """How task runs were asked for together: by whom, and where they are to run.

    The caller of one that goes `at_once` has begun with its first dispatch already.
    """

    options: CallOptions
    flow: FlowInfo
    runner: OpenRunner | None
    parent: Key | None = None
    orders: Inlet | None = None
    at_once: bool = False


class Dispatcher:
    """Hands task runs to their runners or callers, and says what else is to be done with them.

    `asked` says of each task run how it was asked for; `calls` has the packed calls of those that are not
    final.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.asked: dict[str, Asking] = {}
        self.calls: dict[str, Any] = {}
        self.confirming: set[Key] = set()
        self._carrier: ThreadPoolExecutor | None = None
        self._last: tuple[tuple[Any, ...], int, SharedInfo | None] = (), 0, None

    def close(self) -> None:
        """End the thread that carries values from one runner to another, if there is one."""
        if self._carrier is not None:
            self._carrier.shutdown()

    def accept(self, task_run_ids: Sequence[str], calls: Sequence[Any], asking: Asking) -> None:
        """Take the calls of task runs that are asked for together."""
        for task_run_id, call in zip(task_run_ids, calls, strict=True):
            self.asked[task_run_id] = asking
            self.calls[task_run_id] = call

    def forget(self, task_run_ids: Iterable[str]) -> None:
        """Forget how task runs were asked for that have ended, and that nobody needs any more."""
        for task_run_id in task_run_ids:
            self.asked.pop(task_run_id, None)

    def act(self, orders: Sequence[do.Command]) -> None:
        """Act on commands that need not wait for a record any more: each runner gets its own in groups."""
        works: dict[int, tuple[OpenRunner, list[Work]]] = {}
        keys: dict[tuple[int, type[do.Command]], tuple[OpenRunner, list[Key]]] = {}
        for order in orders:
            asked = self.asked.get(order.run_id)
            if asked is None:
                adopter = self._session.adopter
                if adopter is not None and isinstance(order, Release | do.Withdraw | do.Stop):
                    _, group = keys.setdefault((id(adopter), type(order)), (adopter, []))
                    group.append((order.run_id, order.dispatch))
                continue
            if isinstance(order, do.Dispatch):
                self._dispatch(order, asked, works)
            elif isinstance(order, LookUp):
                self._session.caches.look_up(order)
            elif asked.runner is not None and (asked.orders is None or isinstance(order, Release)):
                kind = id(asked.runner), type(order)
                if kind not in keys:
                    keys[kind] = asked.runner, []
                keys[kind][1].append((order.run_id, _dispatch_of(order, self._session)))
        for runner, group_of_works in works.values():
            self._hand_over(runner, group_of_works)
        for (_, instruction), (runner, group) in keys.items():
            _instruct(runner, instruction, group)

    def _dispatch(
        self,
        order: do.Dispatch,
        asked: Asking,
        groups: dict[int, tuple[OpenRunner, list[Work]]],
    ) -> None:
        if asked.at_once and order.dispatch == 1:
            return
        run = self._session.task_run(order.run_id)
        if asked.orders is not None or asked.runner is None or asked.options.here:
            self._send_back(order, asked, self._go(order, run))
            return
        if order.confirm_start:
            self.confirming.add((order.run_id, order.dispatch))
        sources = takes(run.upstreams) if run.upstreams else ()
        if not sources or all(self._is_near(source.task_run_id, asked) for source in sources):
            group = groups.get(id(asked.runner))
            if group is None:
                group = groups[id(asked.runner)] = asked.runner, []
            cached = self._session.caches.cached_as(run.id)
            info = self._info(run, asked, order, cached, confirm_start=order.confirm_start)
            group[1].append(self._work(info, asked, sources))
            return
        if self._carrier is None:
            self._carrier = ThreadPoolExecutor(1, thread_name_prefix="dflow-carrier")
        go = self._go(order, run)
        self._carrier.submit(self.carry, asked.runner, go, order.confirm_start)

    def _go(self, order: do.Dispatch, run: TaskRun) -> Go:
        return Go(
            run.id,
            order.dispatch,
            order.attempt,
            self._session.persisting.left,
            self._session.caches.cached_as(run.id),
            run.generation,
        )

    def _send_back(self, order: do.Dispatch, asked: Asking, go: Go) -> None:
        """Let the caller run the body."""
        if asked.orders is not None:
            asked.orders.put(go)
        elif asked.runner is None:
            raise InternalError(f"Nobody runs '{order.run_id}'.")
        elif asked.parent is not None:
            asked.runner.tell(asked.parent, go)

    def _work(self, info: AttemptInfo, asked: Asking, sources: Sequence[Upstream]) -> Work:
        inputs = NO_INPUTS
        if sources:
            inputs = {source.task_run_id: self._input(source, asked) for source in sources}
        return Work(info, self.calls.get(info.task_run_id), inputs, asked.options.placement)

    def carry(self, runner: OpenRunner, go: Go, confirm_start: bool = False) -> None:
        """Hand over a dispatch that may need a value from another runner, which takes time to fetch."""
        try:
            work = self.work(go, confirm_start=confirm_start)
        except Exception as error:
            self._not_dispatched([(go.task_run_id, go.dispatch)], error)
        else:
            self._hand_over(runner, [work])

    def _hand_over(self, runner: OpenRunner, works: list[Work]) -> None:
        try:
            runner.dispatch(works)
        except Exception as error:
            self._not_dispatched([work.info.key for work in works], error)

    def _not_dispatched(self, keys: Sequence[Key], error: Exception) -> None:
        """Let task runs fail that could not be handed over: there is nothing to wait for."""
        now = self._session.clock.now()
        for task_run_id, dispatch in keys:
            self._session.witness(task_run_id, error)
            self._session.tracker.post(
                ev.AttemptRaised(
                    at=now,
                    task_run_id=task_run_id,
                    dispatch=dispatch,
                    started_at=now,
                    seconds=0.0,
                    error=capture(error),
                    retriable=False,
                )
            )

    def work(self, go: Go, *, confirm_start: bool = False) -> Work:
        """Return the dispatch of a task run as a runner takes it."""
        info = self.info(go, confirm_start=confirm_start)
        return self._work(info, self.asked[go.task_run_id], self.sources(go.task_run_id))

    def sources(self, task_run_id: str) -> list[Upstream]:
        """Return the upstreams whose values a task run takes, or their exceptions if they may fail."""
        return takes(self._session.task_run(task_run_id).upstreams)

    def info(self, go: Go, *, confirm_start: bool = False) -> AttemptInfo:
        """Return what an attempt knows of itself."""
        run, asked = self._session.task_run(go.task_run_id), self.asked[go.task_run_id]
        return self.info_of(run, asked, go, confirm_start=confirm_start)

    def info_of(
        self, run: TaskRun, asked: Asking, go: Go, *, confirm_start: bool = False
    ) -> AttemptInfo:
        """Return what an attempt of a task run knows of itself."""
        return self._info(run, asked, go, go.cached, confirm_start=confirm_start)

    def _info(
        self,
        run: TaskRun,
        asked: Asking,
        order: Go | do.Dispatch,
        cached: CacheAs | None,
        *,
        confirm_start: bool,
    ) -> AttemptInfo:
        return AttemptInfo(
            task_run_id=run.id,
            dispatch=order.dispatch,
            generation=order.generation,
            attempt=order.attempt,
            task_run_name=run.name,
            shared=self._shared(run, asked),
            confirm_start=confirm_start,
            checkpoints=self._checkpoints(run),
            cached=cached,
        )

    def _checkpoints(self, run: TaskRun) -> str:
        folder = self._session.checkpoints
        return f"{folder}/anew-{run.anew}" if run.anew else folder

    def _shared(self, run: TaskRun, asked: Asking) -> SharedInfo:
        """Return what all attempts of one submission have in common: one object while nothing changes."""
        left = self._session.persisting.left
        known = (run.task_name, asked.options, asked.flow, asked.runner, run.tags, run.policy)
        last, last_left, shared = self._last
        if shared is not None and last_left == left and all(map(operator.is_, last, known)):
            return shared
        keeping, around = self._session.persisting.keepings(
            asked.runner, asked.flow, asked.options.results
        )
        shared = SharedInfo(
            task_name=run.task_name,
            flow_run_id=run.flow_run_id,
            flow_run_name=asked.flow.flow_run_name,
            flow_name=asked.flow.flow_name,
            root_id=self._session.root.flow_run_id,
            tags=run.tags,
            log_prints=asked.options.log_prints,
            log_level=asked.flow.log_level,
            extra_loggers=asked.flow.extra_loggers,
            small=self._session.settings.small_result,
            timeout=run.policy.timeout,
            around=asked.options.around,
            keeping=keeping,
            flow_keeping=around,
        )
        self._last = known, left, shared
        return shared

    def _is_near(self, upstream_id: str, asked: Asking) -> bool:
        """Tell whether an upstream's value need not be fetched from another runner."""
        source = self.asked.get(upstream_id)
        run = self._session.task_run(upstream_id)
        return (
            run.held.kept
            or run.stage is not Stage.COMPLETED
            or (source is not None and source.runner is asked.runner)
        )

    def _input(self, upstream: Upstream, asked: Asking) -> Input:
        source = self.asked.get(upstream.task_run_id)
        run = self._session.task_run(upstream.task_run_id)
        same = source is not None and source.runner is asked.runner
        may_fail = upstream.need is Need.ALLOW
        if may_fail and run.stage is not Stage.COMPLETED:
            return Here(self._session.stand_in(run.id))
        if same and (
            run.stage is not Stage.COMPLETED or run.id in self._session.ledger.with_runner
        ):
            return AtRunner((run.id, run.dispatch))
        if run.held is Held.JOURNAL:
            return Blob(self._session.kept_bytes(run.id))
        if run.held is Held.STORED and run.stored is not None:
            return Kept((run.id, run.dispatch), run.name, run.stored, may_fail)
        try:
            return Here(self._session.value(run.id))
        except MissingResult as lost:
            if not may_fail:
                raise
            return Here(Failure(run.name, live=lost))


def _dispatch_of(order: do.Command, session: Session) -> int:
    """Return the dispatch that a command speaks of; by then the task run may have been sent out anew."""
    if isinstance(order, Release | do.Withdraw | do.Stop):
        return order.dispatch
    return session.task_run(order.run_id).dispatch


def _instruct(runner: OpenRunner, kind: type[do.Command], keys: Sequence[Key]) -> None:
    if kind is do.Withdraw:
        runner.withdraw(keys)
    elif kind is do.Stop:
        runner.stop(keys)
    elif kind is Release:
        runner.release(keys)
