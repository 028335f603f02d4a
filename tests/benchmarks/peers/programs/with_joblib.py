"""joblib: batches over processes, without any state; it has no futures, so no submits and no chain."""

from joblib import Parallel, delayed
from measuring import counts, measure, no_op

if __name__ == "__main__":
    mapped, _, _ = counts()
    with Parallel(n_jobs=2) as parallel:
        parallel(delayed(no_op)(i) for i in range(10))
        measure(
            "map",
            mapped,
            lambda: parallel(delayed(no_op)(i) for i in range(mapped)),
            list(range(1, mapped + 1)),
        )
