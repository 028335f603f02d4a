"""The policies by which tasks are cached, under their public name.

>>> from dflow.cache_policies import DEFAULT, INPUTS, TASK_SOURCE
>>> DEFAULT
INPUTS + TASK_SOURCE + RUN_ID
>>> (INPUTS + TASK_SOURCE) - "rng"
INPUTS - 'rng' + TASK_SOURCE
"""

from __future__ import annotations

from dflow.results.policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
)

__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "CachePolicy",
]
