"""What a run takes on the disk, and deleting it: its record, and all that belongs to it beside that.

What belongs to runs is said in one list, `BELONGINGS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

from dflow.engine import recorded, system
from dflow.engine.process import Process
from dflow.errors import EnvironmentProblem, JournalError, ResultStoreError, RunNotFound
from dflow.journal.sqlite.files import folder_size
from dflow.results import cache
from dflow.results.cache import Cleaned
from dflow.results.files import delete_run, folder_of
from dflow.results.stores import Store, store

RECORD = "record"
"""What the record of a run is called among its sizes."""


class Belonging(Protocol):
    """Something that a run has beside its record."""

    name: str

    def size(self, here: Process, run_id: str) -> int:
        """Return how many bytes it takes; 0 if there is none."""

    def delete(self, here: Process, run_id: str) -> None:
        """Delete it, if there is any."""


class Checkpoints:
    """The folder in which the attempts of a run leave what the next ones shall find."""

    name = "checkpoints"

    def size(self, here: Process, run_id: str) -> int:
        """Return how many bytes the folder has."""
        return folder_size(self._folder(here, run_id))

    def delete(self, here: Process, run_id: str) -> None:
        """Delete the folder."""
        folder = self._folder(here, run_id)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise EnvironmentProblem(
                f"The checkpoints in '{folder}' cannot be deleted: {error.strerror or error}. "
                "Delete them by hand, or make them writable and try again."
            ) from error

    def _folder(self, here: Process, run_id: str) -> Path:
        return Path(here.settings.home) / "checkpoints" / run_id


class Parameters:
    """The file of parameters that were too large for the list of runs."""

    name = "parameters"

    def size(self, here: Process, run_id: str) -> int:
        """Return how many bytes the file has."""
        return self._store(here).size(run_id) or 0

    def delete(self, here: Process, run_id: str) -> None:
        """Delete the file."""
        self._store(here).delete(run_id)

    def _store(self, here: Process) -> Store:
        return store(here.settings.home / recorded.FOLDER)


class Results:
    """What result stores keep of a run; files whose names their users have chosen are theirs."""

    name = "results"

    def size(self, here: Process, run_id: str) -> int:
        """Return how many bytes it has in the store of now; nothing is known of one that is out of reach."""
        try:
            return sum(store(here.settings.result_storage).sizes(folder_of(run_id)).values())
        except ResultStoreError:
            return 0

    def delete(self, here: Process, run_id: str) -> None:
        """Delete what is in the stores that its record names, and in the one of now."""
        delete_run({here.settings.result_storage, *_storages(here, run_id)}, run_id)


def _storages(here: Process, run_id: str) -> set[str]:
    """Return the stores in which a run has results, as far as its record can be read."""
    found: set[str] = set()
    with suppress(RunNotFound, JournalError), closing(here.journal.read(run_id)) as reader:
        found.update(run.stored.storage for run in reader.flow_runs() if run.stored is not None)
        found.update(run.stored.storage for run in reader.task_runs() if run.stored is not None)
    return found


BELONGINGS: tuple[Belonging, ...] = (Checkpoints(), Parameters(), Results())
"""All that runs have beside their records, in the order in which it is deleted."""


def clean_cache(here: Process, older_than: float) -> Cleaned:
    """Delete cached values that have expired, or are older than so many seconds. Raises `ResultStoreError`.

    In the store of now; a run that has taken one computes it again, should it be resumed.
    """
    return cache.clean(here.settings.result_storage, here.clock.now(), older_than)


def sizes(here: Process, run_id: str) -> Mapping[str, int]:
    """Return how many bytes a run takes, by what they are: its record first."""
    beside = {belonging.name: belonging.size(here, run_id) for belonging in BELONGINGS}
    return {RECORD: here.journal.size(run_id)} | beside


def delete(here: Process, run_id: str) -> None:
    """Delete a run with all that belongs to it. Raises `RunHeld` while its driver lives, and `RunNotFound`.

    Who deletes a run is its driver meanwhile, so that nobody resumes it. The record comes last: what was not
    deleted to its end is still listed, and can be deleted again.
    """
    catalog = here.journal.catalog
    epoch = catalog.claim(run_id, system.holder(), here.clock.now())
    try:
        for belonging in BELONGINGS:
            belonging.delete(here, run_id)
        here.journal.delete(run_id, epoch)
    except BaseException:
        catalog.release(run_id, epoch)
        raise
