"""dflow: each task run has a state, recorded on disk before it is shown."""

from measuring import counts, measure, no_op

from dflow import flow, task
from task_runners import DaskTaskRunner

plus_one = task(no_op)


@task
def warm(x: int) -> int:
    """See that the cluster runs."""
    return x


@flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1}))
def measured(mapped: int, submitted: int, chained: int) -> None:
    """Measure all."""
    warm.submit(0).result()

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
