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
    elif depth >= DEPTH or kind not in _HOLDING or len(value) > LENGTH:
        return False
    elif kind is dict:
        return _is_plain_dict(value, pieces, depth)
    else:
        pieces.append(_head(b"T" if kind is tuple else b"L", len(value)))
        for item in value:  # noqa: SIM110  (a generator takes as long again)
            if not _is_plain(item, pieces, depth + 1):
                return False
        return True
    pieces.append(b"%b:%d:%b" % (tag, len(data), data))
    return len(data) <= LARGE


_HOLDING = frozenset({tuple, list, dict})


def _is_plain_dict(value: dict[Any, Any], pieces: list[bytes], depth: int) -> bool:
    if not _ONLY_TEXTS.issuperset(map(type, value)):
        return False
    keys = _keys(tuple(value))
    if keys is None:
        return False
    pieces.append(_head(b"D", len(keys)))
    for piece, key in keys:
        pieces.append(piece)
        if not _is_plain(value[key], pieces, depth + 1):
            return False
    return True


_ONLY_TEXTS = frozenset({str})


@lru_cache(maxsize=1024)
def _head(tag: bytes, length: int) -> bytes:
    """Return the piece with which a container begins."""
    count = b"%d" % length
    return b"%b:%d:%b" % (tag, len(count), count)


@lru_cache(maxsize=256)
def _keys(keys: tuple[str, ...]) -> list[tuple[bytes, str]] | None:
    """Return the keys of a dict, in the order of their pieces; None if one is too long to be remembered.

    The names of parameters come again and again.
    """
    if max(map(len, keys), default=0) > LENGTH:
        return None
    return sorted((_piece_of_key(key), key) for key in keys)


def _piece_of_key(key: str) -> bytes:
    data = key.encode("utf-8", "surrogatepass")
    inner = blake2b(b"s:%d:%b" % (len(data), data), digest_size=SIZE).digest()
    return b"-:%d:%b" % (SIZE, inner)
