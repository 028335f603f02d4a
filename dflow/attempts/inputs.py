"""The values that an attempt takes of its upstreams; those in result stores are read where it runs."""

from __future__ import annotations

from typing import Any

from dflow.attempts import clock
from dflow.attempts.failures import Failure
from dflow.core.events import ResultLost
from dflow.core.records import Stored
from dflow.errors import MissingResult
from dflow.messages import Along, Blob, Here, Key
from dflow.ports import Link
from dflow.results import files
from dflow.results.pickling import loads


def value_of(given: Along, link: Link) -> Any:
    """Return the value that goes along with a dispatch in one form or another. Raises as `read` does."""
    match given:
        case Here(value):
            return value
        case Blob(data):
            return loads(data)
    try:
        return read(given.stored, given.name, given.key, link)
    except MissingResult as lost:
        if not given.may_fail:
            raise
        return Failure(given.name, live=lost)


def read(stored: Stored, name: str, key: Key, link: Link) -> Any:
    """Return the stored value of a task run; if it is gone or damaged, let its driver know.

    Raises `MissingResult` (`ResultDamaged`), `SerializationError` and `ResultStoreError`.
    """
    try:
        return files.read(stored, name)
    except MissingResult:
        task_run_id, dispatch = key
        link.send(
            ResultLost(at=clock.now(), task_run_id=task_run_id, dispatch=dispatch, stored=True)
        )
        raise
