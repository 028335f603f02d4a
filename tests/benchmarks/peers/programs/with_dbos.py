"""DBOS: durable in SQLite, in threads of one process; a map is a queue of workflows that two run at once.

Its steps are called one after the other within a workflow: that is the chain.
"""

import os
import tempfile

from dbos import DBOS
from measuring import counts, measure, no_op

step = DBOS.step()(no_op)


@DBOS.workflow()
def one(x: int) -> int:
    """Do one step."""
    return step(x)


@DBOS.workflow()
def chain(count: int) -> int:
    """Do steps that each take the last one's value."""
    last = 0
    for _ in range(count):
        last = step(last)
    return last


if __name__ == "__main__":
    mapped, submitted, chained = counts()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{os.path.join(folder, 'dbos.sqlite')}"
        DBOS(config={"name": "peers", "system_database_url": url, "log_level": "ERROR"})
        DBOS.launch()
        DBOS.register_queue("two", worker_concurrency=2, polling_interval_sec=0.01)
        one(0)

        def enqueued():
            handles = [DBOS.enqueue_workflow("two", one, i) for i in range(mapped)]
            return [handle.get_result() for handle in handles]

        def started():
            handles = [DBOS.start_workflow(one, i) for i in range(submitted)]
            return [handle.get_result() for handle in handles]

        measure("map", mapped, enqueued, list(range(1, mapped + 1)))
        measure("submits", submitted, started, list(range(1, submitted + 1)))
        measure("chain", chained, lambda: chain(chained), chained)
        DBOS.destroy()
