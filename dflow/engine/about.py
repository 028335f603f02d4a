"""A flow run as its tasks and its hooks see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dflow.attempts.context import FlowInfo
from dflow.attempts.parameters import by_name
from dflow.errors import SerializationError
from dflow.results.pickling import dumps, loads


@dataclass(frozen=True, slots=True)
class About:
    """A flow run as its tasks see it; `call` is what it was called with, pickled when it came from afar."""

    flow: FlowInfo
    call: tuple[Callable[..., Any], Any, Any] | bytes | None

    def parameters(self) -> dict[str, Any]:
        """Return its parameters by name. Raises what unpickling them raises."""
        if self.call is None:
            return {}
        if isinstance(self.call, bytes):
            parameters: dict[str, Any] = loads(self.call)
            return parameters
        return by_name(*self.call)

    def packed(self) -> About:
        """Return what can travel. Raises `SerializationError` for parameters that cannot."""
        if self.call is None or isinstance(self.call, bytes):
            return self
        try:
            return About(self.flow, dumps(self.parameters()))
        except Exception as error:
            raise SerializationError(
                f"The parameters of flow run '{self.flow.flow_run_name}' cannot travel to a worker: {error}. "
                "Pass the task what it needs as an argument."
            ) from None
