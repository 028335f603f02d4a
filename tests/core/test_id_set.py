"""A set of ids: it has what was added, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.core import id_set
from dflow.core.id_set import IdSet


@given(st.lists(st.text(max_size=3)), st.lists(st.text(max_size=3)))
def test_it_has_what_was_added(added: list[str], others: list[str]) -> None:
    """As a set of Python: each id is new once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_set, "_FEW", 5)
        check(added, others)


def check(added: list[str], others: list[str]) -> None:
    """Add ids, and compare with a set."""
    ids, known = IdSet(), set[str]()
    for each in added:
        assert ids.add(each) is (each not in known)
        known.add(each)
        assert len(ids) == len(known)
    for each in (*added, *others):
        assert (each in ids) is (each in known)


def test_many() -> None:
    """A hundred thousand are told apart, and take little more than their hashes."""
    ids = IdSet()
    assert all(ids.add(f"run-{number}") for number in range(100_000))
    assert not any(ids.add(f"run-{number}") for number in range(0, 100_000, 100))
    assert not any(f"other-{number}" in ids for number in range(10_000))
    assert len(ids) == 100_000
    sizes = [len(bucket) for bucket in ids._buckets if bucket is not None]
    assert sum(sizes) == 8 * 100_000


def test_two_neighbours_are_no_third() -> None:
    """What lies across two hashes is not found."""
    assert id_set._has(bytearray(b"abcdefghijklmnop"), b"ijklmnop")
    assert not id_set._has(bytearray(b"abcdefghijklmnop"), b"efghijkl")
    assert id_set._has(bytearray(b"aaaabbbbbbbbaaaaaaaaaaaabbbbaaaa"), b"bbbbaaaa")
    assert not id_set._has(bytearray(b"aaaabbbbbbbbaaaa"), b"bbbbbbbb")
