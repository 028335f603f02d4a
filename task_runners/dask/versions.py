"""Whether a cluster that is not ours can run our attempts, said in one error before the first of them."""

# distributed has types in places only.
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False, disallow-any-generics=False

from __future__ import annotations

import pkgutil
from typing import Any

from distributed import Client

from dflow.errors import ClusterError
from task_runners.dask.station import PROTOCOL

# Functions of the standard library, by reference: a worker that lacks dflow can run them too.
_NAME = "task_runners.dask.station:PROTOCOL"


def check(client: Client, address: str) -> None:
    """Raise `ClusterError` if a scheduler or worker has another Python, or not this dflow."""
    problems = [*_pythons(client), *_packages(client)]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ClusterError(
            f"The cluster at '{address}' cannot run tasks of this driver:\n{listed}\n"
            "Install the same version of dflow-dask, and the same minor version of Python, on all of them."
        )


def _pythons(client: Client) -> list[str]:
    found: Any = client.get_versions()
    ours = _python(found["client"])
    others = {"the scheduler": found["scheduler"]}
    others |= {f"worker {name}": info for name, info in found["workers"].items()}
    return [
        f"{name}: Python {_python(info)}, here it is {ours}"
        for name, info in others.items()
        if _python(info) != ours
    ]


def _python(info: dict[str, Any]) -> str:
    version = str((info.get("packages") or {}).get("python") or "?")
    return ".".join(version.split(".")[:2])


def _packages(client: Client) -> list[str]:
    answers: dict[str, Any] = client.run(pkgutil.resolve_name, _NAME, on_error="return")
    answers = {f"worker {name}": answer for name, answer in answers.items()}
    try:
        answers["the scheduler"] = client.run_on_scheduler(pkgutil.resolve_name, _NAME)
    except Exception as error:
        answers["the scheduler"] = error
    return [f"{name}: {_problem(answer)}" for name, answer in answers.items() if answer != PROTOCOL]


def _problem(answer: Any) -> str:
    if isinstance(answer, ImportError):
        return f"dflow-dask cannot be imported ({answer})"
    if isinstance(answer, Exception):
        return f"it does not answer as it should ({answer!r})"
    return "another version of dflow-dask"
