"""The journal in SQLite files, all below one home folder.

::

    catalog.sqlite              all runs, and who drives each       rollback mode, many writers
    leases.sqlite               shares of limited things            rollback mode, many writers
    runs/<run id>/
        journal.sqlite          the record of one run               write-ahead log, one writer
        watermark               how far the record was written      one line, set after each commit
        inbox/                  commands to its driver, one file each

So no two drivers wait for each other, a damaged file harms one run, and to delete a run is to delete
a folder. On a file system of a network everything is in rollback mode.
"""

from dflow.journal.sqlite.journal import SqliteJournal

__all__ = ["SqliteJournal"]
