"""A server on this machine that speaks S3, in a process of its own, for tests of result stores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

BUCKET = "kept"


def needed() -> None:
    """Skip the test where the packages for S3 are not installed."""
    for package in ("s3fs", "moto", "flask_cors"):
        pytest.importorskip(package)


@contextmanager
def running() -> Iterator[Mapping[str, str]]:
    """Run the server; give the environment in which S3 means this server, with an empty bucket."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "moto.server", "-p", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        address = _address(server)
        with urlopen(Request(f"{address}/{BUCKET}", method="PUT"), timeout=60):
            yield _environment(address)
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def _address(server: subprocess.Popen[str]) -> str:
    """Wait until the server says where it listens."""
    lines = []
    for line in server.stdout or ():
        lines.append(line)
        _, found, address = line.partition("Running on ")
        if found:
            return address.strip()
    raise AssertionError("".join(lines))


def _environment(address: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }
