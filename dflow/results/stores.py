"""Result stores: named bytes at a URL, written whole or not at all.

`store` gives the store at a URL: a folder of this machine by the standard library (``file://`` or a plain
path), anything else (``memory://``, ``s3://``, …) by fsspec, which is loaded then. A file of a store is
named by a relative path with ``/``. Nothing else is known here: neither what is in the files, nor who keeps
which. Whatever a file system raises comes out as `ResultStoreError`; what is not there, as `MissingResult`.
"""

from __future__ import annotations

import importlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from dflow.errors import MissingResult, ResultStoreError
from dflow.results.advice import advice, said

Part = bytes | bytearray | memoryview
"""Bytes, of whatever kind."""
MAX_PART: Final = 255
"""How many bytes a name between two slashes may have, as on most file systems."""
PARTIAL: Final = ".dflow-"
"""How the names of files begin that are not whole yet. They are not listed."""

TRIES: Final = 10
"""How often a folder is made that others take away."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f\\*?\[\]]|::|://")


class Store(ABC):
    """Files at one URL. All methods may be called by any thread, and by many processes at once."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ready(self) -> None:
        """See whether anything can be kept here at all, as far as that can be told without asking others.

        Raises `ResultStoreError` for an unknown protocol, and for a folder that cannot be made.
        """
        with self._saying("nothing can be kept"):
            self._ready()

    def write(self, path: str, parts: Sequence[Part], *, sync: bool = False) -> None:
        """Write a file that consists of these parts, in place of any of that name.

        It is there whole, or not at all; of several writers of one name the last one wins. With `sync` it
        survives a power cut too, where that is ours to say.
        """
        checked(path)
        with self._saying(f"'{path}' could not be written"):
            self._write(path, parts, sync)

    def read(self, path: str) -> bytearray:
        """Return a file, in memory that may be changed. Raises `MissingResult` if it is not there."""
        checked(path)
        with self._saying(f"'{path}' could not be read"):
            try:
                return self._read(path)
            except FileNotFoundError:
                raise self._missing(path) from None

    def size(self, path: str) -> int | None:
        """Return how many bytes a file has, or None if it is not there."""
        checked(path)
        with self._saying(f"'{path}' could not be looked at"):
            try:
                return self._size(path)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the files right in a folder with their sizes, by one listing; none if it is not there."""
        checked(folder)
        with self._saying(f"'{folder}' could not be listed"):
            try:
                listed = self._sizes(folder)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        return {name: size for name, size in listed.items() if not name.startswith(PARTIAL)}

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        checked(path)
        with self._saying(f"'{path}' could not be deleted"):
            try:
                self._delete(path)
            except FileNotFoundError:
                return

    def delete_folder(self, folder: str) -> None:
        """Delete a folder with all that is in it, if it is there."""
        checked(folder)
        with self._saying(f"'{folder}' could not be deleted"):
            try:
                self._delete_folder(folder)
            except FileNotFoundError:
                return

    def _missing(self, path: str) -> MissingResult:
        return MissingResult(
            f"'{path}' is not in the result store '{shown(self.url)}' any more: somebody has deleted it, or "
            "this machine sees another store under that name. Resume the run to compute it again."
        )

    @contextmanager
    def _saying(self, what: str) -> Iterator[None]:
        """Let whatever goes wrong inside be a `ResultStoreError`."""
        try:
            yield
        except (ResultStoreError, MissingResult):
            raise
        except Exception as error:
            raise ResultStoreError(
                f"{what}, in the result store '{shown(self.url)}': {said(error)} {advice(error)}"
            ) from error

    @abstractmethod
    def _ready(self) -> None: ...
    @abstractmethod
    def _write(self, path: str, parts: Sequence[Part], sync: bool) -> None: ...
    @abstractmethod
    def _read(self, path: str) -> bytearray: ...
    @abstractmethod
    def _size(self, path: str) -> int | None: ...
    @abstractmethod
    def _sizes(self, folder: str) -> dict[str, int]: ...
    @abstractmethod
    def _delete(self, path: str) -> None: ...
    @abstractmethod
    def _delete_folder(self, folder: str) -> None: ...


# Names and URLs ------------------------------------------------------------------------------------


def checked(path: str) -> str:
    """Return the name of a file in a store. Raises `ResultStoreError` for one that cannot be one.

    No name leads out of the store, and none means several files.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        problem = "it must be a relative path without '..' and empty parts"
    elif (found := _UNFIT.search(path)) is not None:
        problem = f"{found[0]!r} must not be in it"
    elif any(len(os.fsencode(part)) > MAX_PART for part in parts if _encodable(part)):
        problem = f"none of its parts may have more than {MAX_PART} bytes"
    elif not _encodable(path):
        problem = "it must be text that can be written as UTF-8"
    else:
        return path
    raise ResultStoreError(f"{path!r:.200} cannot name a file in a result store: {problem}.")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def url_of(given: str | Path) -> str:
    """Return the URL of a store that was given as a URL or as a path, which is made absolute here.

    Raises `ResultStoreError`. Two texts that mean the same folder give the same URL.
    """
    text = str(given)
    if not text.strip() or "\0" in text:
        raise ResultStoreError(
            f"{text!r} is not the place of a result store: give a path or a URL."
        )
    if "::" in text:
        raise ResultStoreError(
            f"'{shown(text)}' is a chain of file systems. Name the store itself, such as 's3://bucket/results'."
        )
    scheme, found, rest = text.partition("://")
    if found and scheme.lower() not in ("file", "local"):
        return f"{scheme.lower()}://{rest.rstrip('/')}"
    return f"file://{os.path.abspath(os.path.expanduser(rest if found else text))}"


def shown(url: str) -> str:
    """Return a URL as it may be shown: without a password."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", url)


# The stores of this process ------------------------------------------------------------------------

_stores: dict[tuple[int, str], Store] = {}
"""By process, too: a fork must not use the connections of its parent. Takes no lock, for the same reason."""


def store(url: str | Path) -> Store:
    """Return the store at a URL, or in a folder; the same one each time. Raises `ResultStoreError`.

    >>> import tempfile
    >>> results = store(tempfile.mkdtemp())
    >>> results.write("models/first", [b"ab", b"c"])
    >>> bytes(results.read("models/first")), results.sizes("models")
    (b'abc', {'first': 3})
    """
    where = url_of(url)
    key = os.getpid(), where
    found = _stores.get(key)
    return found if found is not None else _stores.setdefault(key, _made(where))


def _made(url: str) -> Store:
    scheme, _, path = url.partition("://")
    return LocalStore(url, path) if scheme == "file" else RemoteStore(url)


class LocalStore(Store):
    """A folder of this machine, or one that is mounted here."""

    def __init__(self, url: str, root: str) -> None:
        super().__init__(url)
        self._root = root

    def _place(self, path: str) -> str:
        return os.path.join(self._root, *path.split("/"))

    def _ready(self) -> None:
        os.makedirs(self._root, exist_ok=True)

    def _write(self, path: str, parts: Sequence[Part], sync: bool) -> None:
        place = self._place(path)
        folder = os.path.dirname(place)
        partial = os.path.join(folder, f"{PARTIAL}{os.urandom(8).hex()}")
        try:
            with _opened(folder, partial) as file:
                for part in parts:
                    _write_all(file, part)
                if sync:
                    os.fsync(file.fileno())
            os.replace(partial, place)
        except BaseException:
            if os.path.lexists(partial):
                os.unlink(partial)
            raise
        if sync:
            _sync_folder(folder)

    def _read(self, path: str) -> bytearray:
        with open(self._place(path), "rb", buffering=0) as file:
            data = bytearray(os.fstat(file.fileno()).st_size)
            view, filled = memoryview(data), 0
            while filled < len(data) and (count := file.readinto(view[filled:])):
                filled += count
            view.release()
            del data[filled:]
            return data

    def _size(self, path: str) -> int | None:
        place = self._place(path)
        return os.stat(place).st_size if not os.path.isdir(place) else None

    def _sizes(self, folder: str) -> dict[str, int]:
        found = {}
        with os.scandir(self._place(folder)) as entries:
            for entry in entries:
                try:
                    if entry.is_file():
                        found[entry.name] = entry.stat().st_size
                except FileNotFoundError:  # deleted meanwhile
                    continue
        return found

    def _delete(self, path: str) -> None:
        os.unlink(self._place(path))
        with suppress(
            OSError
        ):  # as in object stores, a folder in which nothing is left is not there
            while "/" in path:
                path = path.rpartition("/")[0]
                os.rmdir(self._place(path))

    def _delete_folder(self, folder: str) -> None:
        place = self._place(folder)
        with os.scandir(place) as entries:
            for entry in list(entries):
                inside = f"{folder}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    self._delete_folder(inside)
                else:
                    os.unlink(entry.path)
        os.rmdir(place)


def _opened(folder: str, name: str) -> Any:
    """Return a new file; its folder is made, again if somebody has found it empty meanwhile."""
    for _ in range(TRIES):
        os.makedirs(folder, exist_ok=True)
        with suppress(FileNotFoundError):
            return open(name, "xb", buffering=0)
    return open(name, "xb", buffering=0)


def _write_all(file: Any, part: Part) -> None:
    """Write bytes to a file without a buffer, which may take them in pieces."""
    with memoryview(part).cast("B") as view:
        written = 0
        while written < len(view):
            written += file.write(view[written : written + 2**30])


def _sync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_WRITE_WHOLE: Final = frozenset(
    {"memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "tos"}
)
"""Protocols whose files appear whole, once all of them has arrived."""


class RemoteStore(Store):
    """A place that fsspec knows. What a user sets for a protocol is read by fsspec and by that."""

    @cached_property
    def _system(self) -> tuple[Any, str]:
        """The file system and the path of the store in it. Raises whatever fsspec raises."""
        core = importlib.import_module("fsspec.core")  # loaded where it is needed, and not before
        system, root = core.url_to_fs(self.url)
        return system, root.rstrip("/")

    def _ready(self) -> None:
        self._system  # noqa: B018  (made at its first use)

    def _place(self, path: str) -> tuple[Any, str]:
        system, root = self._system
        return system, f"{root}/{path}"

    def _write(self, path: str, parts: Sequence[Part], sync: bool) -> None:  # noqa: ARG002  (theirs to say)
        system, place = self._place(path)
        data = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        if self.url.partition("://")[0] in _WRITE_WHOLE:
            system.pipe_file(place, data)
            return
        folder = place.rpartition("/")[0]
        system.makedirs(folder, exist_ok=True)
        partial = f"{folder}/{PARTIAL}{os.urandom(8).hex()}"
        try:
            system.pipe_file(partial, data)
            system.mv(partial, place)
        except BaseException:
            if system.exists(partial):
                system.rm_file(partial)
            raise

    def _read(self, path: str) -> bytearray:
        system, place = self._place(path)
        return bytearray(system.cat_file(place))

    def _size(self, path: str) -> int | None:
        system, place = self._place(path)
        system.invalidate_cache()  # listings that fsspec keeps may be old
        info = system.info(place)
        return int(info["size"]) if info["type"] == "file" else None

    def _sizes(self, folder: str) -> dict[str, int]:
        system, place = self._place(folder)
        system.invalidate_cache()
        return {
            entry["name"].rstrip("/").rpartition("/")[2]: int(entry["size"] or 0)
            for entry in system.ls(place, detail=True)
            if entry["type"] == "file"
        }

    def _delete(self, path: str) -> None:
        system, place = self._place(path)
        system.rm_file(place)

    def _delete_folder(self, folder: str) -> None:
        system, place = self._place(folder)
        system.invalidate_cache()
        system.rm(place, recursive=True)
