"""dflow: durable workflows for machine learning, executed on Dask."""
