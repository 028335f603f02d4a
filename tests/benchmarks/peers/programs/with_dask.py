"""Raw Dask."""

from dask.distributed import Client, LocalCluster
from measuring import counts, measure, no_op

if __name__ == "__main__":
    mapped, submitted, chained = counts()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(no_op, range(10), pure=False))

        def submits():
            return client.gather([client.submit(no_op, i, pure=False) for i in range(submitted)])

        def chain():
            last = 0
            for _ in range(chained):
                last = client.submit(no_op, last, pure=False)
            return last.result()

        measure(
            "map",
            mapped,
            lambda: client.gather(client.map(no_op, range(mapped), pure=False)),
            list(range(1, mapped + 1)),
        )
        measure("submits", submitted, submits, list(range(1, submitted + 1)))
        measure("chain", chained, chain, chained)
