"""The durable record of runs: implementations of the journal ports of ``dflow.ports``.

`SqliteJournal` keeps everything in one folder of SQLite files; `MemoryJournal` behaves the same and
keeps nothing. This room stores and gives back. It must not decide what a run's state is, know the
time (times arrive as arguments) or unpickle what it keeps.
"""

from dflow.journal.memory import MemoryJournal
from dflow.journal.sqlite import SqliteJournal

__all__ = ["MemoryJournal", "SqliteJournal"]
