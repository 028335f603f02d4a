"""What attempts know of themselves."""

from __future__ import annotations

from dflow.core.plain import Plain
from dflow.core.values import CacheAs, Keeping

Key = tuple[str, int]
"""(task run id, dispatch): never the same twice."""


class SharedInfo(Plain, frozen=True, kw_only=True):
    """What all attempts of one submission know of themselves alike.

    `small` is the size in bytes up to which a value rides along, `timeout` the seconds it may take, `around`
    the tags that hold for whatever it calls, `keeping` what becomes of its value, `flow_keeping` what becomes
    of values in its flow run where their tasks do not say it.
    """

    task_name: str
    flow_run_id: str
    flow_run_name: str
    flow_name: str
    root_id: str
    tags: tuple[str, ...] = ()
    log_prints: bool = False
    log_level: int = 20
    extra_loggers: tuple[str, ...] = ()
    small: int = 16_384
    timeout: float | None = None
    around: tuple[str, ...] = ()
    keeping: Keeping | None = None
    flow_keeping: Keeping | None = None


class AttemptInfo(Plain, frozen=True, kw_only=True):
    """What an attempt knows of itself; much of it is `shared` with others of the same submission.

    `checkpoints` is the folder of the checkpoints that are for it, `cached` where others look for its value.
    """

    task_run_id: str
    dispatch: int
    generation: int
    attempt: int
    task_run_name: str
    shared: SharedInfo
    confirm_start: bool = False
    checkpoints: str = ""
    cached: CacheAs | None = None

    @property
    def key(self) -> Key:
        """The name of the dispatch."""
        return self.task_run_id, self.dispatch

    @property
    def room(self) -> int | None:
        """How many bytes of items that a generator hands out are kept; None: however many there are."""
        asked = self.cached is not None or (self.keeping is not None and self.keeping.persist)
        return None if asked else self.small

    @property
    def task_name(self) -> str:
        """The name of the task."""
        return self.shared.task_name

    @property
    def flow_run_id(self) -> str:
        """The flow run it belongs to."""
        return self.shared.flow_run_id

    @property
    def flow_run_name(self) -> str:
        """The name of that."""
        return self.shared.flow_run_name

    @property
    def flow_name(self) -> str:
        """The name of the flow."""
        return self.shared.flow_name

    @property
    def root_id(self) -> str:
        """The root flow run."""
        return self.shared.root_id

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the task run."""
        return self.shared.tags

    @property
    def log_prints(self) -> bool:
        """Whether prints become log lines."""
        return self.shared.log_prints

    @property
    def log_level(self) -> int:
        """The level from which on its log lines are recorded."""
        return self.shared.log_level

    @property
    def extra_loggers(self) -> tuple[str, ...]:
        """The loggers that are recorded beside its own."""
        return self.shared.extra_loggers

    @property
    def small(self) -> int:
        """The size in bytes up to which its value rides along."""
        return self.shared.small

    @property
    def timeout(self) -> float | None:
        """The seconds it may take."""
        return self.shared.timeout

    @property
    def around(self) -> tuple[str, ...]:
        """The tags that hold for whatever it calls."""
        return self.shared.around

    @property
    def keeping(self) -> Keeping | None:
        """What becomes of its value."""
        return self.shared.keeping

    @property
    def flow_keeping(self) -> Keeping | None:
        """What becomes of values in its flow run where their tasks do not say it."""
        return self.shared.flow_keeping
