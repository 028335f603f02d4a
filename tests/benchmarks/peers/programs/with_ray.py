"""Ray: two worker processes; it keeps no record on disk."""

import tempfile

import ray
from measuring import counts, measure, no_op

if __name__ == "__main__":
    mapped, submitted, chained = counts()
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            object_store_memory=200_000_000,
            log_to_driver=False,
        )
        remote = ray.remote(no_op)
        ray.get([remote.remote(i) for i in range(10)])

        def chain():
            last = 0
            for _ in range(chained):
                last = remote.remote(last)
            return ray.get(last)

        for work, count in (("map", mapped), ("submits", submitted)):  # Ray has one way for both
            measure(
                work,
                count,
                lambda: ray.get([remote.remote(i) for i in range(count)]),  # noqa: B023  (called at once)
                list(range(1, count + 1)),
            )
        measure("chain", chained, chain, chained)
        ray.shutdown()
