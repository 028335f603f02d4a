"""Fingerprints of plain values, quickly: nearly all arguments are numbers, texts, and short lists of them.

They are made of the same pieces as those of any other value (`dflow.results.fingerprints`), in one go.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Any

from dflow.messages import Ref

SIZE = 16
"""Bytes of a fingerprint."""
LARGE = 4096
"""From how many bytes on a piece is hashed by SHA-256, for which processors have instructions."""
DEPTH = 8
LENGTH = 100
"""Up to which depth and length containers are taken in one go."""


def digest(value: Any) -> bytes | None:
    """Return the fingerprint of a value, or None if it is not plain, or too long for this."""
    pieces: list[bytes] = []
    if not _is_plain(value, pieces, 0):
        return None
    return blake2b(b"".join(pieces), digest_size=SIZE).digest()


def _is_plain(value: Any, pieces: list[bytes], depth: int) -> bool:
    """Collect the pieces of a value, if it is plain."""
    kind = type(value)
    if kind is int:
        tag, data = b"i", b"%x" % value
    elif kind is str:
        tag, data = b"s", value.encode("utf-8", "surrogatepass")
    elif kind is float:
        tag, data = b"f", value.hex().encode()
    elif kind is Ref:
        tag, data = b"W" if value.may_fail else b"R", value.task_run_id.encode()
    elif kind is bytes:
        tag, data = b"y", value
    elif value is None:
        tag, data = b"N", b""
    elif kind is bool:
        tag, data = b"b", b"1" if value else b"0"
    elif kind is tuple or kind is list:
        return _are_plain(value, b"T" if kind is tuple else b"L", pieces, depth)
    else:
        return kind is dict and _is_plain_dict(value, pieces, depth)
    pieces.append(b"%b:%d:%b" % (tag, len(data), data))
    return len(data) <= LARGE


def _are_plain(values: Any, tag: bytes, pieces: list[bytes], depth: int) -> bool:
    if depth >= DEPTH or len(values) > LENGTH:
        return False
    count = b"%d" % len(values)
    pieces.append(b"%b:%d:%b" % (tag, len(count), count))
    for item in values:  # noqa: SIM110  (a generator takes as long again)
        if not _is_plain(item, pieces, depth + 1):
            return False
    return True


def _is_plain_dict(value: dict[Any, Any], pieces: list[bytes], depth: int) -> bool:
    if depth >= DEPTH or len(value) > LENGTH:
        return False
    count = b"%d" % len(value)
    pieces.append(b"D:%d:%b" % (len(count), count))
    items = []
    for key, item in value.items():
        if type(key) is not str or len(key) > LENGTH:
            return False
        items.append((_piece_of_key(key), item))
    if len(items) > 1:
        items.sort(key=_first)
    for piece, item in items:
        pieces.append(piece)
        if not _is_plain(item, pieces, depth + 1):
            return False
    return True


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


@lru_cache(maxsize=1024)
def _piece_of_key(key: str) -> bytes:
    """Return the piece of a key of a dict: the names of parameters come again and again."""
    data = key.encode("utf-8", "surrogatepass")
    inner = blake2b(b"s:%d:%b" % (len(data), data), digest_size=SIZE).digest()
    return b"-:%d:%b" % (SIZE, inner)
