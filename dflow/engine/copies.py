"""Copies of arguments: what is changed after a call does not change what was called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from dflow.attempts.calls import ATOMS, Call


def apart(calls: Sequence[Call]) -> list[Call]:
    """Return cached calls with arguments of their own, where bodies share the memory of their caller.

    The key was made of the arguments as they are now; so is the value. What many calls share is copied once.
    What cannot be copied (a lock, a connection) stays as it is.
    """
    shared: dict[int, Mapping[str, Any]] = {}
    for call in calls:
        if id(call.shared) not in shared:
            shared[id(call.shared)] = _copied(call.shared)
    return [
        replace(
            call,
            args=tuple(_copy(value) for value in call.args),
            kwargs=_copied(call.kwargs),
            shared=shared[id(call.shared)],
        )
        for call in calls
    ]


def _copied(named: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: _copy(value) for name, value in named.items()}


def _copy(value: Any) -> Any:
    if type(value) in ATOMS:
        return value
    try:
        return deepcopy(value)
    except Exception:  # whatever a class of the user's raises: then nothing is promised for it
        return value
