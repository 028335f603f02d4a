"""Prefect with its Dask runner and the server that it starts for itself."""

from measuring import counts, measure, no_op
from prefect import flow, task
from prefect_dask import DaskTaskRunner

plus_one = task(no_op, name="no-op")
TWO = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}


@flow(task_runner=DaskTaskRunner(cluster_kwargs=TWO))
def measured(mapped: int, submitted: int, chained: int) -> None:
    """Measure all."""
    plus_one.submit(0).result()

    def submits():
        return [future.result() for future in [plus_one.submit(i) for i in range(submitted)]]

    def chain():
        last = 0
        for _ in range(chained):
            last = plus_one.submit(last)
        return last.result()

    measure(
        "map",
        mapped,
        lambda: list(plus_one.map(range(mapped)).result()),
        list(range(1, mapped + 1)),
    )
    measure("submits", submitted, submits, list(range(1, submitted + 1)))
    measure("chain", chained, chain, chained)


if __name__ == "__main__":
    measured(*counts())
