"""Parsl: its executor for many short tasks, two worker processes; it keeps no record on disk."""

import tempfile

import parsl
from measuring import counts, measure, no_op
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider


def configured(folder):
    """Return a configuration that stays on this machine."""
    executor = HighThroughputExecutor(
        label="two",
        address="127.0.0.1",
        max_workers_per_node=2,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )
    return Config(executors=[executor], run_dir=folder, usage_tracking=0)


if __name__ == "__main__":
    mapped, submitted, chained = counts()
    with tempfile.TemporaryDirectory() as folder, parsl.load(configured(folder)):
        app = parsl.python_app(no_op)
        app(0).result()

        def chain():
            last = 0
            for _ in range(chained):
                last = app(last)
            return last.result()

        for work, count in (("map", mapped), ("submits", submitted)):  # Parsl has one way for both
            measure(
                work,
                count,
                lambda: [future.result() for future in [app(i) for i in range(count)]],  # noqa: B023  (called at once)
                list(range(1, count + 1)),
            )
        measure("chain", chained, chain, chained)
