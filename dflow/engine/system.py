"""The clock, luck, and this process: the one place where they enter the engine."""

from __future__ import annotations

import getpass
import os
import random
import secrets
import socket
import time
from functools import cache
from pathlib import Path

import psutil

from dflow.ports import Holder

_ADJECTIVES = (
    "amber brave brisk calm clever copper coral daring deep dusty eager early fair fleet gentle golden "
    "grand happy hazel honest humble indigo jolly keen kind late lively lucky lunar mellow merry mild "
    "misty noble olive patient placid plucky proud quick quiet ready rosy rustic sage scarlet silent "
    "silver sleek snowy solar steady sunny swift tidy velvet vivid warm wise witty young zesty"
).split()
_ANIMALS = (
    "badger beaver bison bobcat camel condor crane cricket dingo dolphin eagle egret falcon ferret finch "
    "gazelle gecko gibbon heron hornet ibex iguana jackal jaguar kestrel koala lemur leopard lizard llama "
    "lynx magpie marmot marten mole moose newt ocelot orca osprey otter owl panda pelican penguin plover "
    "puffin quail rabbit raven robin salmon seal shrew sparrow stoat stork swan tapir tern toucan trout "
    "turtle viper walrus weasel whale wombat wren yak zebra"
).split()


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return seconds since 1970 in UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go backwards, from some start."""
        return time.monotonic()


class SystemIds:
    """Ids and luck from this machine."""

    def run_id(self) -> str:
        """Return 32 hexadecimal digits: the time in milliseconds, then 80 random bits (as in UUIDv7)."""
        return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"

    def run_name(self) -> str:
        """Return an adjective, an animal and a number."""
        number = secrets.randbelow(1000)
        return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_ANIMALS)}-{number}"

    def luck(self) -> float:
        """Return a number in [0, 1)."""
        return random.random()


def holder() -> Holder:
    """Return this process as the driver of a run."""
    return Holder(
        pid=os.getpid(),
        host=socket.gethostname(),
        boot_id=_boot_id(),
        started_at=_started_at(os.getpid()),
        user=_user(),
        pids=_pids(),
    )


def is_alive(other: Holder) -> bool | None:
    """Tell whether the process that `other` describes is still there; None if that cannot be seen from here.

    A pid that has been used again is told apart by the time at which its process started. Processes
    of another machine cannot be seen, nor those of another container.
    """
    if other.host != socket.gethostname():
        return None
    if other.boot_id != _boot_id():
        return False
    if other.pids not in ("", _pids()):
        return None
    try:
        process = psutil.Process(other.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        began = _since_boot(other.pid)
        if began is None or other.started_at > _WALL_CLOCK:
            began = process.create_time()
        return abs(began - other.started_at) < 1.0
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


_WALL_CLOCK = 1e9
"""A start later than this many seconds is one since 1970, as other systems than Linux tell it."""


def _started_at(pid: int) -> float:
    """Return when a process started: on Linux in seconds since boot, which setting the clock leaves alone."""
    since_boot = _since_boot(pid)
    return float(psutil.Process(pid).create_time()) if since_boot is None else since_boot


def _since_boot(pid: int) -> float | None:
    """Return when a process started, in seconds since boot, where the system tells it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")


_START_FIELD = 19
"""Where the start of a process is in ``/proc/PID/stat``, after its name in parentheses."""


def _pids() -> str:
    """Return what names the processes that have their pids from the same count, where there are several."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


@cache
def _boot_id() -> str:
    """Return what names this boot of the machine: Linux has an id for it, elsewhere its time serves."""
    path = Path("/proc/sys/kernel/random/boot_id")
    if path.exists():
        return path.read_text(encoding="ascii").strip()
    return f"boot-{int(psutil.boot_time()) // 10}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
