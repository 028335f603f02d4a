"""Cache records: what is found is what was kept; whatever is damaged, foreign, late or gone is not there."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dflow.core.records import Stored
from dflow.errors import ResultStoreError
from dflow.results import cache
from dflow.results.cache import CacheRecord, Cleaned, decoded, encoded
from dflow.results.keys import digest_of
from dflow.results.stores import store

NOW = 1_700_000_000.0
KEY = digest_of("a")


def record(key: str = KEY, **given: Any) -> CacheRecord:
    """Return a record."""
    fields: dict[str, Any] = {"created": NOW, "value": b"v", "task_run": "a-0", "flow_run": "b"}
    return CacheRecord(key=key, **{**fields, **given})


def stored(storage: str, path: str, size: int = 3) -> Stored:
    """Return where a value is."""
    return Stored(storage, path, size, "0" * 32, "pickle")


records = st.builds(
    CacheRecord,
    key=st.just(KEY),
    created=st.floats(0, 1e10),
    expires=st.none() | st.floats(0, 1e10),
    value=st.none() | st.binary(max_size=100),
    stored=st.none()
    | st.builds(Stored, st.text(), st.text(), st.integers(0), st.text(), st.text()),
    task_run=st.text(),
    flow_run=st.text(),
    task_run_id=st.text(),
)


@given(records)
def test_a_record_is_read_as_it_was_written(written: CacheRecord) -> None:
    """Whatever is in it."""
    assert decoded(encoded(written), KEY) == written


@given(records, st.data())
def test_a_damaged_record_is_not_there(written: CacheRecord, data: st.DataObject) -> None:
    """Cut anywhere, or with any bit flipped, it gives nothing rather than something wrong."""
    whole = encoded(written)
    cut = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    assert decoded(whole[:cut], KEY) is None
    assert decoded(bytes(flipped), KEY) in (
        None,
        written,
    )  # in the head a letter may be of either case


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"foreign",
        b"dflow cache 1 0\n",
        encoded(record()).replace(b"cache 1", b"cache 2", 1),
    ],
)
def test_a_foreign_or_newer_file_is_not_there(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and the value is computed."""
    assert decoded(data, KEY) is None
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]


def test_a_record_of_another_key_is_not_there() -> None:
    """A file that was copied to another name is not taken for it."""
    assert decoded(encoded(record()), digest_of("b")) is None


def test_what_was_kept_is_found_until_it_expires(url: str) -> None:
    """Of many keys those that are there and good; the last record of a key counts."""
    where, other, gone = url, digest_of("b"), digest_of("c")
    cache.write(where, record(value=b"old"))
    cache.write(where, record(value=b"new"))
    cache.write(where, record(other, expires=NOW + 10))
    assert {r.key: r.value for r in cache.look(where, [KEY, other, gone], NOW).values()} == {
        KEY: b"new",
        other: b"v",
    }
    assert set(cache.look(where, [KEY, other], NOW + 10)) == {KEY}
    cache.forget(where, KEY)
    assert cache.look(where, [KEY], NOW) == {}


def test_a_value_that_is_gone_or_cut_is_a_miss(url: str) -> None:
    """Its size is looked at, and nothing else: nothing is loaded."""
    where = url
    place = stored(where, f"{cache.folder_of(KEY)}/{KEY}-1")
    cache.write(where, record(value=None, stored=place))
    assert cache.look(where, [KEY], NOW) == {}
    store(where).write(place.path, [b"???"])
    found = cache.look(where, [KEY], NOW)[KEY]
    assert found.stored == place
    store(where).write(place.path, [b"??"])
    assert cache.look(where, [KEY], NOW) == {}


def test_stores_that_are_far_away_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many keys take about as long as a few."""
    where = "memory://far"
    keys = [digest_of(str(number)) for number in range(cache.AT_ONCE)]
    for key in keys:
        cache.write(where, record(key))
    read = store(where).read
    inside: set[int] = set()

    def slow(path: str) -> bytearray:
        inside.add(hash(path))
        deadline = time.monotonic() + 5
        while len(inside) < 2 and time.monotonic() < deadline:
            pass
        return read(path)

    monkeypatch.setattr(store(where), "read", slow)
    assert set(cache.look(where, keys, NOW)) == set(keys)
    assert len(inside) == len(keys)


def test_a_store_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """It is one error, whatever the file system."""
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(ResultStoreError):
        cache.write(str(tmp_path), record())


# Cleaning --------------------------------------------------------------------------------------------


def test_what_has_expired_is_deleted_with_its_values(url: str) -> None:
    """Also values that were overwritten since; what is good stays."""
    where, good, old = url, digest_of("good"), digest_of("old")
    folder = cache.folder_of(KEY)
    for name in (f"{folder}/{KEY}-1", f"{folder}/{KEY}-2", f"{cache.folder_of(good)}/{good}-1"):
        store(where).write(name, [b"123"])
    cache.write(where, record(value=None, stored=stored(where, f"{folder}/{KEY}-2"), expires=NOW))
    place = stored(where, f"{cache.folder_of(good)}/{good}-1")
    cache.write(where, record(good, value=None, stored=place, expires=NOW + 100))
    cache.write(where, record(old, created=NOW - 1000))
    before = cache.size(where)
    cleaned = cache.clean(where, NOW)
    assert (cleaned.keys, cleaned.left) == (1, 2)
    assert cache.size(where) == before - cleaned.size
    assert store(where).sizes(folder) == {}
    assert set(cache.look(where, [good, old], NOW)) == {good, old}
    assert cache.clean(where, NOW, older_than=500).keys == 1
    assert set(cache.look(where, [good, old], NOW)) == {good}
    assert cache.clean(where, NOW, older_than=0).left == 0
    assert cache.size(where) == 0


def test_what_cannot_be_read_is_deleted_too(url: str) -> None:
    """It is of use to nobody."""
    where = url
    store(where).write(cache.path_of(KEY), [b"damaged"])
    assert cache.clean(where, NOW) == Cleaned(1, 7, 0)
    assert cache.clean(where, NOW) == Cleaned(0, 0, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-9, 9)), max_size=6), st.floats(-9, 9))
def test_cleaning_leaves_exactly_what_can_be_found(
    tmp_path: Path, kept: list[tuple[str, float]], later: float
) -> None:
    """What is left is what a lookup finds."""
    where = str(tmp_path / "store")
    store(where).delete_folder(cache.FOLDER)
    for name, expires in kept:
        cache.write(where, record(digest_of(name), expires=NOW + expires))
    found = cache.look(where, [digest_of(name) for name in "abc"], NOW + later)
    assert cache.clean(where, NOW + later).left == len(found)
