"""What a run takes on the disk, and deleting it: its record, and all that belongs to it beside that.

What belongs to runs is said in one list, `BELONGINGS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dflow.engine import recorded, system
from dflow.engine.process import Process
from dflow.errors import EnvironmentProblem
from dflow.journal.sqlite.files import folder_size
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


BELONGINGS: tuple[Belonging, ...] = (Checkpoints(), Parameters())
"""All that runs have beside their records, in the order in which it is deleted."""


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
