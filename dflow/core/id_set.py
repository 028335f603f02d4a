"""A set of ids that takes little memory: some ten bytes each, where one of Python takes a hundred."""

from __future__ import annotations

_BUCKETS = 4096  # a power of two
_SIZE = 8  # bytes of a hash


class IdSet:
    """Ids, each known by the 64 bits of its hash.

    Of a million ids two have the same hash in one of 30 million sets (the birthday problem: n**2 / 2**65).
    """

    __slots__ = ("_buckets", "_count")

    def __init__(self) -> None:
        self._buckets: list[bytearray | None] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, run_id: str) -> bool:
        if not self._buckets:
            return False
        hashed = hash(run_id)
        bucket = self._buckets[hashed % _BUCKETS]
        return bucket is not None and _has(bucket, hashed.to_bytes(_SIZE, "little", signed=True))

    def add(self, run_id: str) -> bool:
        """Add an id; return whether it is new."""
        if not self._buckets:
            self._buckets = [None] * _BUCKETS
        hashed = hash(run_id)
        key = hashed.to_bytes(_SIZE, "little", signed=True)
        bucket = self._buckets[hashed % _BUCKETS]
        if bucket is None:
            self._buckets[hashed % _BUCKETS] = bytearray(key)
        elif _has(bucket, key):
            return False
        else:
            bucket += key
        self._count += 1
        return True


def _has(bucket: bytearray, key: bytes) -> bool:
    at = bucket.find(key)
    while at > 0 and at % _SIZE:  # of two neighbours a part each
        at = bucket.find(key, at + 1)
    return at >= 0
