"""A set of ids that takes little memory: some ten bytes each, where one of Python takes a hundred."""

from __future__ import annotations

_FEW = 1000
_BUCKETS = 4096  # a power of two
_SIZE = 8  # bytes of a hash


class IdSet:
    """Ids. From a thousand on each is known by the 64 bits of its hash, and ten thousand take 25 bytes each.

    Of a million ids two have the same hash in one of 30 million sets (the birthday problem: n**2 / 2**65).
    """

    __slots__ = ("_buckets", "_count", "_few")

    def __init__(self) -> None:
        self._few: set[str] = set()
        self._buckets: list[bytearray | None] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, run_id: str) -> bool:
        """Tell whether an id was added. Other threads may ask, too."""
        if not self._buckets:
            return run_id in self._few
        hashed = hash(run_id)
        bucket = self._buckets[hashed % _BUCKETS]
        return bucket is not None and _has(bucket, hashed.to_bytes(_SIZE, "little", signed=True))

    def add(self, run_id: str) -> bool:
        """Add an id; return whether it is new."""
        if self._buckets:
            new = _put(self._buckets, run_id)
        else:
            new = run_id not in self._few
            self._few.add(run_id)
            if len(self._few) > _FEW:
                self._spread()
        self._count += new
        return new

    def _spread(self) -> None:
        buckets: list[bytearray | None] = [None] * _BUCKETS
        for run_id in self._few:
            _put(buckets, run_id)
        self._buckets = buckets
        self._few = set()


def _put(buckets: list[bytearray | None], run_id: str) -> bool:
    hashed = hash(run_id)
    key = hashed.to_bytes(_SIZE, "little", signed=True)
    bucket = buckets[hashed % _BUCKETS]
    if bucket is None:
        buckets[hashed % _BUCKETS] = bytearray(key)
    elif _has(bucket, key):
        return False
    else:
        bucket += key
    return True


def _has(bucket: bytearray, key: bytes) -> bool:
    at = bucket.find(key)
    while at > 0 and at % _SIZE:  # of two neighbours a part each
        at = bucket.find(key, at + 1)
    return at >= 0
