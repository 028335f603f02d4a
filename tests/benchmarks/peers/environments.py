"""Virtual environments of the peers, each its own, made once and kept outside of this folder."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MARK = "requirements.sha256"


class NotInstalled(Exception):
    """A peer cannot be installed here."""


def cache_folder() -> Path:
    """Return where environments are kept, unless another folder is named."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "dflow-benchmarks", "peers")


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of a peer."""

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def prepare(self) -> None:
        """Make it, if it is not there or its requirements have changed. Raises `NotInstalled`."""
        wanted = HERE / "requirements" / f"{self.name}.txt"
        digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
        mark = self.folder / MARK
        if mark.exists() and mark.read_text() == digest:
            return
        self._carry_out(sys.executable, "-m", "venv", "--clear", str(self.folder))
        self._carry_out(
            *(str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--requirement", str(wanted)),
        )
        mark.write_text(digest)

    def versions(self) -> str:
        """Return the names and versions of what was asked for."""
        wanted = (HERE / "requirements" / f"{self.name}.txt").read_text().splitlines()
        names = [re.split(r"[^\w-]", line)[0] for line in wanted]
        code = (
            "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
        )
        command = [str(self.python), "-c", code, *names]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return ", ".join(f"{n} {v}" for n, v in zip(names, done.stdout.split(), strict=True))

    def _carry_out(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise NotInstalled(lines[-1] if lines else f"exit code {done.returncode}")
