"""Every error that dflow raises, in one tree, ordered by whose turn it is to act.

::

    DflowError
    ├── DefinitionError          the flow, the task or the call is written wrongly
    │   ├── ParameterError       arguments do not fit the function's parameters
    │   ├── SerializationError   an argument or a result cannot travel to another process
    │   ├── MissingMainGuard     a script starts worker processes without a main guard
    │   └── NoRunError           something needs a current run and there is none
    ├── RunError                 what became of a flow run or a task run
    │   ├── TaskFailedError      a task's own exception cannot be rebuilt here
    │   ├── UpstreamFailedError  the task never ran: something it depends on failed
    │   ├── UpstreamLostError    a value it depends on was lost and cannot be made again
    │   ├── CrashedError         its worker died, more often than its budget allows
    │   ├── CancelledError       it was cancelled
    │   ├── TimedOutError        its attempt took longer than it may
    │   └── MissingResult        it completed, but its value was not kept, or is gone
    │       └── ResultDamaged    what was kept is not what was written
    ├── EnvironmentProblem       the machine, a file or a cluster is not as it must be
    │   ├── JournalError         the record on disk
    │   │   ├── JournalUnavailable   it cannot be opened or written
    │   │   ├── NotAJournal          the file is not one of ours
    │   │   ├── JournalTooNew        it was written by a newer dflow
    │   │   ├── JournalDamaged       it does not hold what was written
    │   │   ├── RunHeld              a live driver owns this run
    │   │   └── RunTakenOver         another driver has taken this run from us
    │   ├── ResultStoreError     a result store cannot be used
    │   ├── RunNotFound          no run, or more than one, answers to that name
    │   ├── NotResumable         the run cannot be resumed as it was recorded
    │   ├── EntrypointError      a ``FILE.py:FLOW`` that cannot be loaded
    │   ├── SettingsError        a setting has a value that it cannot have
    │   └── ClusterError         a cluster cannot be started or reached, or was lost
    ├── WaitTimeout              a result was waited for no longer; the run goes on
    └── InternalError            dflow broke a rule of its own: please report it

Every error takes one message, says what happened and then what to do, and survives pickle.

>>> try:
...     raise RunNotFound("No run answers to 'clever-pelican'.")
... except EnvironmentProblem as problem:
...     print(problem)
No run answers to 'clever-pelican'.
"""

from __future__ import annotations

__all__ = [
    "CancelledError",
    "ClusterError",
    "CrashedError",
    "DefinitionError",
    "DflowError",
    "EntrypointError",
    "EnvironmentProblem",
    "InternalError",
    "JournalDamaged",
    "JournalError",
    "JournalTooNew",
    "JournalUnavailable",
    "MissingMainGuard",
    "MissingResult",
    "NoRunError",
    "NotAJournal",
    "NotResumable",
    "ParameterError",
    "ResultDamaged",
    "ResultStoreError",
    "RunError",
    "RunHeld",
    "RunNotFound",
    "RunTakenOver",
    "SerializationError",
    "SettingsError",
    "TaskFailedError",
    "TimedOutError",
    "UpstreamFailedError",
    "UpstreamLostError",
    "WaitTimeout",
]


class DflowError(Exception):
    """The root of every error that dflow raises."""


class DefinitionError(DflowError):
    """A flow, a task or a call is written in a way that cannot work."""


class ParameterError(DefinitionError, TypeError):
    """Arguments do not fit the parameters of the function."""


class SerializationError(DefinitionError):
    """An argument or a result cannot travel to another process."""


class MissingMainGuard(DefinitionError):
    """A script starts worker processes outside ``if __name__ == "__main__":``."""


class NoRunError(DefinitionError):
    """Something that needs a current flow run or task run was used outside of one."""


class RunError(DflowError):
    """A flow run or a task run ended without a value to give."""


class TaskFailedError(RunError):
    """A task raised an exception that cannot be rebuilt in this process.

    ``type_name`` is the exception's type as written in its module, ``text`` its message and
    ``traceback`` the formatted traceback of the process that raised it.
    """

    def __init__(
        self, message: str, *, type_name: str = "", text: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback


class UpstreamFailedError(RunError):
    """A task never ran because something it depends on failed."""


class UpstreamLostError(RunError):
    """A value that a task depends on was lost and could not be computed again."""


class CrashedError(RunError):
    """The workers that ran a task died more often than ``max_worker_losses`` allows."""


class CancelledError(RunError):
    """A flow run or a task run was cancelled."""


class TimedOutError(RunError, TimeoutError):
    """An attempt, or a flow, took longer than its ``timeout_seconds``."""


class MissingResult(RunError):
    """A task run completed, but its value was neither kept nor is it still on the cluster."""


class ResultDamaged(MissingResult):
    """What a result store keeps is not what was written to it: another size, or another content."""


class EnvironmentProblem(DflowError):
    """The machine, a file or a cluster is not as it must be."""


class JournalError(EnvironmentProblem):
    """The durable record of runs cannot be used."""


class JournalUnavailable(JournalError):
    """The journal cannot be opened, read or written."""


class NotAJournal(JournalError):
    """The file is not a journal of dflow."""


class JournalTooNew(JournalError):
    """The journal was written by a newer dflow than this one."""


class JournalDamaged(JournalError):
    """The journal does not hold what was written to it."""


class RunHeld(JournalError):
    """A live driver owns the run. ``pid`` and ``host`` name it."""

    def __init__(self, message: str, *, pid: int = 0, host: str = "") -> None:
        super().__init__(message)
        self.pid = pid
        self.host = host


class RunTakenOver(JournalError):
    """Another driver has taken the run over; this one may not write any more."""


class ResultStoreError(EnvironmentProblem):
    """A result store cannot be reached, read or written, or is not shared with workers."""


class RunNotFound(EnvironmentProblem):
    """No run, or more than one, answers to that id or name."""


class NotResumable(EnvironmentProblem):
    """The run cannot be resumed as it was recorded."""


class EntrypointError(EnvironmentProblem):
    """A flow that was named as ``FILE.py:FLOW`` cannot be loaded."""


class SettingsError(EnvironmentProblem):
    """A setting has a value that it cannot have."""


class ClusterError(EnvironmentProblem):
    """A cluster cannot be started or reached, or was lost."""


class WaitTimeout(DflowError, TimeoutError):
    """Something was waited for no longer than the caller wanted. What it is goes on.

    By its class it is told apart from a TimeoutError that a task raised, and from a task that timed out.
    """


class InternalError(DflowError):
    """dflow broke a rule of its own. Please report it with the message."""
