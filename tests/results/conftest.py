"""Stores of every kind, for tests of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest

from tests import s3

numbers = count()


@pytest.fixture(scope="package")
def s3_server() -> Iterator[Mapping[str, str]]:
    """The environment in which S3 means a server of this machine."""
    s3.needed()
    with s3.running() as environment:
        yield environment


@pytest.fixture(params=["local", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store, of each kind in turn."""
    if request.param == "local":
        return f"file://{tmp_path}/kept here"
    if request.param == "memory":
        return f"memory://kept-{next(numbers)}"
    for name, value in request.getfixturevalue("s3_server").items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.BUCKET}/{next(numbers)}"
