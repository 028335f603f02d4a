"""Whether two processes see the same store: one leaves a token there, the other looks for it."""

from __future__ import annotations

import os
import socket
from typing import Final

from dflow.errors import MissingResult, ResultStoreError
from dflow.results.files import folder_of
from dflow.results.stores import PARTIAL, shown, store

ADVICE: Final = (
    "Set result_storage= or DFLOW_RESULT_STORAGE to a place that all machines share, such as a network "
    "folder or 's3://bucket/results'."
)


def leave(storage: str, root_id: str) -> str:
    """Leave a token in a store for a root flow run, and return its path. Raises `ResultStoreError`."""
    path = f"{folder_of(root_id)}/{PARTIAL}token-{os.urandom(8).hex()}"
    store(storage).write(path, [path.encode()])
    return path


def unusable(storage: str) -> str | None:
    """Return why this process cannot keep anything in a store, or None."""
    try:
        store(storage).ready()
    except ResultStoreError as error:
        return _cannot_be_used(error)
    return None


def _cannot_be_used(error: ResultStoreError) -> str:
    return f"On '{socket.gethostname()}' the result store cannot be used: {error}"


def remove(storage: str, token: str) -> None:
    """Take a token out of a store. Raises `ResultStoreError`."""
    store(storage).delete(token)


_known: dict[tuple[int, str, str], str | None] = {}
MANY: Final = 1000
"""How many tokens are remembered before they are forgotten again."""


def problem(storage: str, token: str) -> str | None:
    """Return why this process does not see the store in which a token was left; None if it does.

    Each process looks once for each token.
    """
    key = os.getpid(), storage, token
    if key not in _known:
        if len(_known) >= MANY:
            _known.clear()
        _known[key] = _looked(storage, token)
    return _known[key]


def _looked(storage: str, token: str) -> str | None:
    try:
        if store(storage).read(token) == token.encode():
            return None
    except MissingResult:
        pass
    except ResultStoreError as error:
        return _cannot_be_used(error)
    return (
        f"What the driver writes to the result store '{shown(storage)}' is not seen on "
        f"'{socket.gethostname()}' (process {os.getpid()}): they do not share it. {ADVICE}"
    )
