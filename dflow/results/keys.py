"""The pieces that keys of caches are made from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from types import FunctionType
from typing import Any

from dflow.results.fingerprints import NoFingerprint, content
from dflow.results.source import origin
from dflow.results.taking_apart import is_installed


@dataclass(frozen=True, slots=True)
class Hashed:
    """Stands for a value whose content has been hashed already."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands in an argument for the value of a task run, of which the key learns later."""

    number: int


@dataclass(frozen=True, slots=True)
class TaskRunInKey:
    """A task run, as a cache policy or a key function sees it before it runs."""

    id: str
    name: str
    task_name: str
    flow_run_id: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyContext:
    """What a cache policy or a key function is told of a call: its task, its task run and its arguments."""

    task: Any
    task_run: TaskRunInKey
    parameters: dict[str, Any]


def hashed(what: str, name: str, value: Any) -> Hashed:
    """Return a value by its hash. Raises `NoFingerprint` that says whose it is."""
    if isinstance(value, Hashed):
        return value
    try:
        return Hashed(content(value))
    except NoFingerprint as problem:
        raise NoFingerprint(
            f"{what} '{name}': {problem}. An argument that plays no part in the value can be left out of the "
            f'key: INPUTS - "{name}".'
        ) from None


def hash_text(value: Any) -> str:
    """Return the hash of a value as a text. Raises `NoFingerprint`."""
    return content(value).hex()


def content_text(value: Any) -> str | None:
    """Return the hash of a value as a text, or None if it has none."""
    try:
        return hash_text(value)
    except NoFingerprint:
        return None


def task_in_key(function: Any) -> str:
    """Return what tells a task from others in keys. Raises `NoFingerprint` for one that nothing tells.

    A function goes by where it is defined and by its name; one that is made inside another one, of which
    there may be many, goes by its content.
    """
    if isinstance(function, FunctionType) and "<" not in function.__qualname__:
        return origin(function)
    try:
        return content(function).hex()
    except NoFingerprint as problem:
        raise closes_over(problem) from None


def file_in_key(function: Any) -> str:
    """Return the file of a function that its name may not tell from those of other programs, or ""."""
    if not isinstance(function, FunctionType) or "<" in function.__qualname__:
        return ""  # it goes by its content
    if is_installed(function.__module__):
        return ""
    name = function.__code__.co_filename
    return name if name.startswith("<") else os.path.abspath(name)


def closes_over(problem: NoFingerprint) -> NoFingerprint:
    """Return the error for a task whose function closes over what has no content."""
    return NoFingerprint(
        f"what its function closes over has no content: {problem}. Define the task in a module, or give it "
        "what it needs as arguments."
    )


def digest_of(*parts: str | bytes) -> str:
    """Return 40 hexadecimal digits that stand for some texts, in their order."""
    whole = blake2b(digest_size=20)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        whole.update(b"%d:" % len(data))
        whole.update(data)
    return whole.hexdigest()
