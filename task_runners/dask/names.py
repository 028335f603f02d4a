"""What things of a flow run are called on a cluster: its owner, its run, its topics."""

from __future__ import annotations

import os
from hashlib import blake2b

OWNER = "dflow-"
"""How the names of owners begin."""


def owner_of(root_id: str, address: str) -> str:
    """Return under which name a root flow run owns its work: whoever drives it later finds it again."""
    where = blake2b(address.encode(), digest_size=4).hexdigest()
    return f"{OWNER}{root_id}-{where}"


def run_of(owner: str) -> str:
    """Return what keys and stations of an owner are called by; see `is_fed`."""
    return "0f" + blake2b(owner.encode(), digest_size=5).hexdigest()


def run_of_client() -> str:
    """Return what keys and stations are called by that end with a client."""
    return os.urandom(3).hex()


def is_fed(run: str) -> bool:
    """Tell whether there is a feed on the scheduler that takes the letters of a run."""
    return run.startswith("0f") and len(run) == 12


def root_of(owner: str) -> str:
    """Return the root flow run whose work an owner has."""
    return owner.removeprefix(OWNER).rpartition("-")[0]


def feed_topic(owner: str) -> str:
    """Return the topic on which a driver hears what becomes of an owner's work."""
    return f"{owner}-feed"


def letters_topic(run: str) -> str:
    """Return the topic to which workers log letters where there is no feed."""
    return f"dflow-{run}"


def places_topic(run: str) -> str:
    """Return the topic on which the scheduler tells of what no worker can take."""
    return f"dflow-{run}-places"
