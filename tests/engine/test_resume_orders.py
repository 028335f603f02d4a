"""Resume finds finished work again in whatever order it is asked for, and in whatever order bodies end."""

from __future__ import annotations

import asyncio
import contextvars
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import wraps
from typing import Any

import pytest

from dflow import as_completed, current_run, flow, task
from dflow.core.records import Stage
from dflow.engine.defined import to_the_end
from dflow.flows import Flow
from dflow.messages import Work
from tests.engine.far import FarRunner
from tests.engine.world import World

COUNT = 6
SEEDS = 13
"""Orders of each flow: more than fifty in all."""
RAN: Counter[str] = Counter()

See = Callable[[int], int]
"""What a flow does with each value that it is shown: in the first run one of them is the last it sees."""


class Shuffling(FarRunner):
    """Begins bodies in an order that luck decides; each gets a moment before the next one begins."""

    def __init__(self, luck: random.Random) -> None:
        super().__init__()
        self._luck = luck
        self._waiting: list[Work] = []
        self._come = threading.Condition()
        self._over = False
        threading.Thread(target=self._deal, daemon=True).start()

    def dispatch(self, works: Sequence[Work]) -> None:
        """Take bodies."""
        with self._come:
            self._waiting.extend(works)
            self._come.notify()

    def _deal(self) -> None:
        while True:
            with self._come:
                self._come.wait_for(lambda: self._waiting or self._over)
                if self._over:
                    return
                work = self._waiting.pop(self._luck.randrange(len(self._waiting)))
            super().dispatch([work])
            self.threads[-1].join(0.001)

    def close(self) -> None:
        """Begin nothing more."""
        with self._come:
            self._over = True
            self._come.notify()
        super().close()


def ran() -> None:
    """Note that the body of this task run has begun."""
    RAN[str(current_run().task_run_id)] += 1


@task
def step(*given: Any) -> int:
    """Add up."""
    ran()
    return sum(sum(each) if isinstance(each, list) else each for each in given)


@task
async def later(n: int) -> int:
    """Give it back, after others had their turn."""
    ran()
    await asyncio.sleep(0)
    return n


@task
def parent(n: int) -> int:
    """Ask for others, in an order of its own."""
    ran()
    order = random.Random(threading.get_ident()).sample(range(3), 3)
    futures = [step.submit(n, child) for child in order]
    return sum(future.result() for future in as_completed(futures)) + step(n)


# Flows: each returns the same, and makes the same task runs, in whatever order ----------------------------


def completed(order: list[int], see: See) -> list[int]:
    """Submit what follows as things complete."""
    first = [step.submit(n) for n in order]
    second = [step.submit([future], 100) for future in as_completed(first)]
    third = [step.submit(see(future.result()), 1000) for future in as_completed(second)]
    return sorted(see(future.result()) for future in third)


async def gathered(order: list[int], see: See) -> list[int]:
    """Await coroutines and futures together."""
    values = await asyncio.gather(*(later(n) for n in order))
    futures = [later.submit(100 + see(n)) for n in values]
    return sorted([see(await future) async for future in as_completed(futures)])


def threaded(order: list[int], see: See) -> list[int]:
    """Call and submit from threads of the flow's own."""
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(contextvars.copy_context().run, step, n) for n in order]
        submit = current_run().bind(step.submit)
        futures = [pool.submit(submit, n, 100) for n in reversed(order)]
    values = [call.result() for call in calls]
    values += [future.result().result() for future in futures]
    return sorted(map(see, values))


def nested(order: list[int], see: See) -> list[int]:
    """Let task runs ask for task runs."""
    futures = [parent.submit(n) for n in order]
    return sorted(see(future.result()) for future in as_completed(futures))


@dataclass(frozen=True)
class Shape:
    """A flow's body, what it returns, and how many task runs it makes."""

    body: Callable[..., Any]
    value: list[int]
    task_runs: int


SHAPES = {
    "as completed": Shape(completed, [1100 + n for n in range(COUNT)], 3 * COUNT),
    "gather": Shape(gathered, [100 + n for n in range(COUNT)], 2 * COUNT),
    "threads": Shape(threaded, [*range(COUNT), *(100 + n for n in range(COUNT))], 2 * COUNT),
    "nested": Shape(nested, [4 * n + 3 for n in range(COUNT)], 5 * COUNT),
}


def in_order(shape: Shape, luck: random.Random, last: int | None) -> Flow[[], Any]:
    """Return the flow with another order of calls and bodies; it is interrupted behind the `last` value."""
    order, seen = luck.sample(range(COUNT), COUNT), list[int]()

    def see(value: int) -> int:
        seen.append(value)
        if len(seen) == last:
            raise KeyboardInterrupt
        return value

    if asyncio.iscoroutinefunction(shape.body):

        @wraps(shape.body)
        async def body() -> Any:
            return await shape.body(order, see)
    else:

        @wraps(shape.body)
        def body() -> Any:
            return shape.body(order, see)

    del body.__wrapped__  # its parameters are not those of the flow
    return flow(name="main", task_runner=Shuffling(luck))(body)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", SHAPES)
def test_finished_work_is_found_again(kind: str, seed: int, world: World) -> None:
    """What has completed does not run again or under another name; each value is where it was."""
    RAN.clear()
    shape, luck = SHAPES[kind], random.Random(f"{kind} {seed}")
    first = in_order(shape, luck, last=luck.randint(1, COUNT))
    with pytest.raises(KeyboardInterrupt):
        to_the_end(first.kind, first())
    done = {run.id for run in world.reader().task_runs() if run.stage is Stage.COMPLETED}
    before = Counter(RAN)
    again = in_order(shape, luck, last=None)
    assert to_the_end(again.kind, again.resume("latest")) == shape.value
    assert {run_id: RAN[run_id] for run_id in done} == {run_id: before[run_id] for run_id in done}
    task_runs = list(world.reader().task_runs())
    assert len(task_runs) == shape.task_runs
    assert {run.stage for run in task_runs} == {Stage.COMPLETED}
