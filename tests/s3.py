"""A server on this machine that speaks S3, in a process of its own, for tests of result stores."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

from dflow.results import stores

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
    reading = threading.Thread(target=_read_on, args=(server,), daemon=True)
    try:
        address = _address(server)
        reading.start()
        with urlopen(Request(f"{address}/{BUCKET}", method="PUT"), timeout=60):
            _forget_earlier_servers()
            yield _environment(address)
    finally:
        _forget_earlier_servers()
        server.kill()
        server.wait()
        if reading.ident is not None:
            reading.join()
        if server.stdout is not None:
            server.stdout.close()


def _forget_earlier_servers() -> None:
    """Let nobody in this process go on to speak to a server that was there before, under the same URLs."""
    package = importlib.import_module("s3fs")
    package.S3FileSystem.clear_instance_cache()
    for known in [known for known in stores._stores if known[1].startswith("s3://")]:
        del stores._stores[known]


def _read_on(server: subprocess.Popen[str]) -> None:
    """Read what the server says of each request: nobody else does, and it stops when the pipe is full."""
    for _ in server.stdout or ():
        pass


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
