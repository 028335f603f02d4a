"""One attempt of a task run, wherever it runs: inline, in a thread, on a worker of a cluster.

This room owns what happens round the user's function: its context, its logs and prints, its exceptions,
its result, and the Link to the driver. It must not know where it runs, nor decide what follows: it
reports. It imports little, so that it works on workers that have only what Dask itself installs.
"""
