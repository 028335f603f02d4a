"""What is to become of the values of runs: whether, where and how they are kept, and who may find them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What becomes of a value that is too large for the journal.

    With `persist` it is written to the result store at the URL `storage`, below `folder`, by `serializer`;
    left open (None), if its body took `seconds` or longer and it has at most `quota` bytes. `name` is the
    template of the path in the store that its user has chosen, if there is one; a small value is written
    there too. With `sync` it is to survive a power cut. `token` is a file that the driver has left in the
    store: who does not find it there sees another store.
    """

    storage: str
    folder: str
    persist: bool | None = None
    serializer: str = "pickle"
    seconds: float = 1.0
    quota: int = 0
    name: str | None = None
    sync: bool = False
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOptions:
    """What a task or a flow says of its results; what is None is as in the flow around it."""

    persist: bool | None = None
    storage: str | None = None
    serializer: str | None = None
    name: str | None = None

    def over(self, keeping: Keeping) -> Keeping:
        """Return what becomes of its values where this holds around it."""
        changes: dict[str, Any] = {}
        if self.name != keeping.name:
            changes["name"] = self.name
        if self.persist is not None:
            changes["persist"] = self.persist
        if self.serializer is not None:
            changes["serializer"] = self.serializer
        if self.storage is not None and self.storage != keeping.storage:
            changes |= {"storage": self.storage, "token": ""}
        return replace(keeping, **changes) if changes else keeping


UNSAID = ResultOptions()


@dataclass(frozen=True, slots=True)
class Maker:
    """By what a value is made: the file of a function, and what stands for its code.

    Without a file any other one is as good: the key alone says what is meant.
    """

    file: str = ""
    source: str = ""

    def trusts(self, other: Maker) -> bool:
        """Tell whether what the other has made is what this would make.

        Two files of one name may be two programs, as may be whatever has no file: then their code must be the
        same.
        """
        same_file = self.file == other.file and not self.file.startswith("<")
        return not self.file or same_file or self.source == other.source


ANYBODY = Maker()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAs:
    """The value of an attempt goes into the cache under `key`, in the store `storage`, for so many `seconds`.

    It does not if the arguments `given` have other contents by then: in one process others may change them.
    """

    key: str
    storage: str
    seconds: float | None = field(default=None, compare=False)
    given: tuple[tuple[str, bytes], ...] = field(default=(), compare=False)
    maker: Maker = field(default=ANYBODY, compare=False)
