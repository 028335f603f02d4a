"""Tasks: the functions that a flow sends out, and the calls that a user makes on them.

A task is a definition: a function and how its runs are to be treated. Calling, submitting and mapping ask
the current scope for task runs; what becomes of those is the engine's.
"""

from __future__ import annotations

from collections.abc import (
    Callable,
    Coroutine,
    Iterable,
    Mapping,
)
from dataclasses import replace
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, ParamSpec, Self, TypeVar, overload

from dflow.attempts.stepping import hand_out, uncarried
from dflow.core.events import TaskCreated
from dflow.engine import asking, cache_options, callbacks, calls, definitions, maps
from dflow.engine.callbacks import AddsHook
from dflow.engine.context import current_scope
from dflow.engine.defined import Defined, Items, Method, P, R_co, as_called
from dflow.engine.future_lists import TaskFutureList
from dflow.engine.futures import TaskFuture, state_of
from dflow.engine.naming import Naming
from dflow.engine.options import Delays, Hooks, Name, TaskOptions, changed
from dflow.engine.scope import Scope
from dflow.messages import CallOptions
from dflow.results.policies import CachePolicy
from dflow.results.source import source_digest
from dflow.states import State

Q = ParamSpec("Q")
S = TypeVar("S")
T = TypeVar("T")


class Task(Defined[P, R_co, TaskOptions]):
    """A function whose runs are recorded, retried and sent to workers. Made by `task`.

    >>> @task
    ... def square(x: int) -> int:
    ...     return x * x
    >>> square(3)
    9
    >>> square.submit(4).result()
    16
    >>> square.map([1, 2, 3]).result()
    [1, 4, 9]
    """

    def __init__(self, fn: Callable[P, R_co], options: TaskOptions) -> None:
        super().__init__(fn, options)
        what = f"task '{self.name}'"
        self.tags = definitions.tags(what, options.tags)
        self._placement = definitions.placement(
            what, options.resources, options.priority, options.workers, options.batch
        )
        workers = self._placement.workers or None
        options = replace(options, tags=self.tags, workers=workers)
        self._options = callbacks.checked(options, what)
        self.callbacks = callbacks.callbacks_of(self, self._options)
        self._policy = definitions.policy(
            what,
            options.retries,
            options.retry_delay_seconds,
            options.retry_jitter_factor,
            options.max_worker_losses,
            options.timeout_seconds,
        )
        self._results = definitions.results(
            what,
            options.persist_result,
            options.result_storage,
            options.result_serializer,
            options.result_storage_key,
            self._signature.parameters,
        )
        self._naming = Naming.of(what, "task_run_name", options.task_run_name, self.function)
        self.cached = cache_options.cached(what, options)
        self._treatments = asking.Treatments(self.tags, self._placement, self._results)

    @cached_property
    def _source(self) -> str:
        """What stands for the code of its function."""
        return source_digest(self.function)

    @overload
    def __get__(
        self: Method[type[S], Q, T], instance: object | None, owner: type[S]
    ) -> Task[Q, T]: ...
    @overload
    def __get__(self: Method[S, Q, T], instance: S, owner: type) -> Task[Q, T]: ...
    @overload
    def __get__(self, instance: object | None, owner: type | None = None) -> Self: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        """Return this with `self` (or the class) filled in, when it is looked up on an instance."""
        return super().__get__(instance, owner)

    def _call(self, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        return_state, wait_for = given.pop("return_state", False), given.pop("wait_for", None)
        scope = current_scope()
        event, call, options = asking.one(
            self, scope, self._arguments(args, given), wait_for, here=True
        )
        steps = self._run(scope, event, call, options, return_state)
        return as_called(self.kind, steps, whole=return_state)

    async def _run(
        self, scope: Scope, event: TaskCreated, call: Any, options: CallOptions, return_state: bool
    ) -> Any:
        """Run a direct call; return its value or its state, after handing out what is not handed out yet."""
        try:
            called = await scope.call(event, call, options, kind=self.kind, whole=return_state)
        except Exception as error:
            status = scope.status(event.task_run_id)
            if not return_state or not status.final:
                raise
            return state_of(status, partial(_raise, uncarried(error)))
        if return_state:
            return state_of(scope.status(event.task_run_id), lambda: called.value)
        if self.kind.hands_out and not called.ran:
            for item in called.value:  # of an earlier run
                await hand_out(item)
        return called.value

    @overload
    def submit(self, /, *args: Any, return_state: Literal[True], **kwargs: Any) -> State: ...
    @overload
    def submit(
        self: Task[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
    ) -> TaskFuture[T]: ...
    @overload
    def submit(self: Task[..., Items[T]], /, *args: Any, **kwargs: Any) -> TaskFuture[list[T]]: ...
    @overload
    def submit(self, /, *args: Any, **kwargs: Any) -> TaskFuture[R_co]: ...
    def submit(self, /, *args: Any, **kwargs: Any) -> Any:
        """Ask for a task run, and return its future at once.

        Futures among the arguments, at any depth of containers, are the values of other task runs: this one
        goes when they are there. They are found in lists, tuples, sets, deques, dicts, dataclasses and
        pydantic models, not in objects of other classes; `allow_failure`, `quote` and `opaque` say how an
        argument is meant. ``wait_for=[…]`` names futures that must have completed, though their values are
        not needed. With ``return_state=True`` the final `State` is waited for and returned. An async function
        runs on a loop of its own there, and the items of a generator become a list. Raises `ParameterError`
        for arguments that do not fit and `SerializationError` for those that cannot travel to the runner.
        """
        return_state, wait_for = kwargs.pop("return_state", False), kwargs.pop("wait_for", None)
        scope = current_scope()
        event, call, options = asking.one(self, scope, self._arguments(args, kwargs), wait_for)
        scope.submit(event, [call], options)
        future: TaskFuture[Any] = TaskFuture(scope, event.task_run_id, event.name)
        if not return_state:
            return future
        future.wait()
        return future.state

    @overload
    def map(self, /, *args: Any, return_state: Literal[True], **kwargs: Any) -> list[State]: ...
    @overload
    def map(
        self: Task[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
    ) -> TaskFutureList[T]: ...
    @overload
    def map(self: Task[..., Items[T]], /, *args: Any, **kwargs: Any) -> TaskFutureList[list[T]]: ...
    @overload
    def map(self, /, *args: Any, **kwargs: Any) -> TaskFutureList[R_co]: ...
    def map(self, /, *args: Any, **kwargs: Any) -> Any:
        """Ask for a task run for each item of the arguments that are lists; return their futures at once.

        Of a long map the first items run while the others are asked for, in pace with the record of them.
        Every iterable argument is mapped, but for strings, bytes, dicts, data frames and models; what is the
        same for every item is wrapped in `unmapped`. The lengths must agree. Over the future of a list the
        map is made once that list is there: what is returned at once waits for it when it is looked at (see
        `TaskFutureList`). ``max_in_flight=n`` lets at most n of the task runs be under way at once. With
        ``return_state=True`` the final states are returned.
        """
        return_state, wait_for = kwargs.pop("return_state", False), kwargs.pop("wait_for", None)
        limit = calls.limit_of(kwargs.pop("max_in_flight", None))
        scope = current_scope()
        futures: TaskFutureList[Any] = maps.start(
            scope,
            self.function,
            self.name,
            self._arguments(args, kwargs),
            wait_for,
            partial(asking.many, self, scope, limit),
        )
        if not return_state:
            return futures
        futures.wait()
        return futures.states

    def _treated(self, **how: Any) -> tuple[CallOptions, tuple[str, ...]]:
        """Return how runs that are asked for here are treated, and their tags."""
        return self._treatments.here(self._options.log_prints, self.callbacks, **how)

    on_running = AddsHook()
    on_completion = AddsHook()
    on_failure = AddsHook()


def _raise(error: BaseException) -> Any:
    raise error


@overload
def task(fn: Callable[P, R_co], /, **options: Any) -> Task[P, R_co]: ...
@overload
def task(
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    version: str | None = None,
    task_run_name: Name = None,
    retries: int = 0,
    retry_delay_seconds: Delays = 0,
    retry_jitter_factor: float | None = None,
    retry_condition_fn: Callable[..., Any] | None = None,
    timeout_seconds: float | None = None,
    cache_policy: CachePolicy | None = None,
    cache_key_fn: Callable[..., str | None] | None = None,
    cache_expiration: timedelta | float | None = None,
    refresh_cache: bool = False,
    persist_result: bool | None = None,
    result_storage: str | Path | None = None,
    result_storage_key: str | None = None,
    result_serializer: str | None = None,
    log_prints: bool | None = None,
    on_running: Hooks = None,
    on_completion: Hooks = None,
    on_failure: Hooks = None,
    resources: Mapping[str, float] | None = None,
    priority: int = 0,
    workers: str | Iterable[str] | None = None,
    batch: bool | None = None,
    max_worker_losses: int = 3,
) -> Callable[[Callable[P, R_co]], Task[P, R_co]]: ...
def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task: as a decorator, bare or with options, or by a call with the function.

    name
        The name of the task, by default that of the function.
    description, tags, version
        Recorded with its runs.
    task_run_name
        The name of its runs, instead of the task's with a number: a template over the parameters such as
        ``"train-{lr:.3f}"``, or a function of nothing or of ``parameters``. What needs the value of a future
        is named when its body begins.
    retries
        How many more attempts an attempt that raised may have (0 or more).
    retry_delay_seconds
        Seconds before a retry: a number, a list whose last value repeats, or a function that makes such a
        list from the number of retries, such as `exponential_backoff`.
    retry_jitter_factor
        The share (0 to 1) by which a delay may grow or shrink, at random.
    retry_condition_fn
        ``fn(task, task_run, state) -> bool``, asked in the driver before a retry: False means that there is
        none. Any callable, async too; `state` is that of the failed attempt, its ``.result()`` raises the
        exception. Asked after timeouts too, but not where no retry is left. An error in it is logged and
        means no. A slow one holds up only its own task run; the delay counts from the failure.
    timeout_seconds
        How long one attempt may take. What takes longer is FAILED with the state ``TimedOut``, within a
        second, and retried if retries are left. A coroutine is cancelled; a plain function, which runs in a
        thread of its own then, gets an exception at its next bytecode, and is left behind if that does not
        help: it goes on, harms nothing, and what becomes of it is not recorded.
    cache_policy
        When its value is there already: a policy of ``dflow.cache_policies``, such as ``INPUTS``, or one of
        yours; none if not said. What is found is `Cached`, takes no worker and loads nothing. Runs with the
        same key at the same time compute it once, also those of other drivers with the same home. Arguments
        are hashed by their content, the value of a future by where it comes from; what cannot be hashed is
        said once. Cached values are always kept; what is raised is not cached.
    cache_key_fn
        ``fn(context, parameters) -> str | None`` makes the key instead (None: no caching), which other tasks
        may share. With futures among the arguments it is asked in the driver, which fetches their values.
    cache_expiration, refresh_cache
        How long it is good: a timedelta, or seconds; for ever if not said. With ``True`` it is made anew.
    persist_result
        Whether its value is kept, for a resume and for whoever asks for it later: True, False, or left open
        as in the flow, and if that says nothing either, by itself: if the body took a second or longer
        (``DFLOW_PERSIST_SECONDS``), as long as a run takes no more than ``DFLOW_RESULT_QUOTA`` bytes by that.
        Values up to 16 kB are always kept, in the record. Larger ones are written by the worker; where
        that fails, the attempt has failed, and may be retried.
    result_storage
        Where larger values are kept: a folder that workers share, or a URL such as ``s3://bucket/results``
        (left open: as in the flow; without either ``DFLOW_RESULT_STORAGE``).
    result_storage_key
        The name of its file there, as a template: ``"models/{parameters[lr]}.pkl"``, with ``task_run.name``
        and ``flow_run.name`` too. Small values are written there as well, and each run writes it anew.
    result_serializer
        How it is written: ``"pickle"`` (as left open), ``"json"``, either after ``"compressed/"``, or one of
        yours (`dflow.results.register_serializer`). Who names one of these three wants it to be kept.
    log_prints
        Whether prints become log lines; left open, as in the flow.
    on_running, on_completion, on_failure
        Hooks: one or several ``hook(task, task_run, state)``, sync or async, called in the driver after the
        commit of what they speak of, wherever the body ran. `on_running` once per attempt; `on_completion`
        also for cached runs; `on_failure` for failed, timed out and crashed runs and for those that lost an
        upstream's value, but not where an upstream failed: that code never ran. Nothing is called for
        cancelled runs. ``state.result()`` gives the value, or raises; ask for it in the hook. One thread
        calls them one after the other: a slow hook delays other hooks, not the work, and the flow call
        returns after all of them, however long they take (Ctrl-C ends the wait). An error in a hook is
        logged with the run and harms nothing. `get_run_logger()` works; calling tasks does not, flows do.
        ``@my_task.on_completion`` adds one to this very task; `with_options` replaces, None clears. After
        a resume they hear only of what happens then.
    resources
        What a worker must have, and have free, to run it: ``{"GPU": 1}``. A body that waits for others keeps
        it. On Dask, for runs that are submitted or mapped, as the next two; other runners take no notice.
    priority
        Of the runs that wait for a worker, those with a higher number go first (0 if not said; may be less).
    workers
        The name or the address of the worker that must run it, or several of which one must.
    batch
        Whether its runs may travel with others. To send a task run to a worker costs milliseconds on Dask,
        and so small ones go many at a time: those found to take less than some 50 milliseconds share one task
        of the cluster, whatever they call. Each keeps its own state, times, log lines, error, result and
        retries, and one that turns out slow holds nobody up: what is behind it goes elsewhere. That happens
        by itself; ``True`` lets its runs share though they take longer, ``False`` lets none share.
    max_worker_losses
        How many dying workers a run survives; not charged to `retries`.

    >>> @task(retries=2)
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double.fn(4)
    8

    Raises `DefinitionError` for an option that does not exist or cannot have its value.
    """
    made = changed(TaskOptions(), options, "task") if options else TaskOptions()
    if fn is None:
        return lambda function: Task(function, made)
    return Task(fn, made)
