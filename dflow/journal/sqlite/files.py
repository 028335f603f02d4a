"""Folders and files: made for their owner alone, refused when they are somebody else's."""

from __future__ import annotations

import os
import pwd
import threading
from contextlib import suppress
from pathlib import Path

from dflow.errors import JournalUnavailable
from dflow.journal.sqlite.failures import folder_failure


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for its owner alone, whatever the umask."""
    try:
        if path.is_dir():
            return
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise folder_failure(error, path) from error


def exists(path: Path) -> bool:
    """Tell whether there is something at `path`. Raises JournalUnavailable when that is kept from us."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise folder_failure(error, path) from error
    return True


def check_owner(path: Path, uid: int) -> None:
    """Raise JournalUnavailable if the file belongs to another user than `uid`."""
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise folder_failure(error, path) from error
    if owner != uid:
        raise JournalUnavailable(
            f"'{path}' belongs to the user '{_name(owner)}'. "
            "Set DFLOW_HOME to a folder of your own."
        )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def draft_of(path: Path) -> Path:
    """Return the path at which this thread prepares what will be at `path`, with nothing there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.unlink(missing_ok=True)
    return draft


def publish(draft: Path, path: Path) -> None:
    """Give a draft its name; where somebody else was quicker, theirs stays."""
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError:  # some file systems know no links
        if not path.exists():
            draft.rename(path)
    draft.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folder_size(folder: Path) -> int:
    """Return how many bytes the files in a folder have, and in those below it; 0 if there is none."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # it has just been deleted
            total += 0 if path.is_symlink() else path.stat().st_size * path.is_file()
    return total
