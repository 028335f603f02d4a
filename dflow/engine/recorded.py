"""What a root flow run is run again with: its parameters, its options, its runner; recorded and read back.

Parameters are pickled into the details of the run, or where they are large into a file beside the journal.
What cannot be recorded is named, so that somebody hears of it when the run begins and not when it is lost.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from dflow.core.plain import build, plain
from dflow.core.records import Stored
from dflow.engine import calls, origins
from dflow.engine.defined import Defined
from dflow.errors import DflowError, NotResumable
from dflow.results import files, pickling

MAX_INLINE = 100_000
"""Up to how many bytes a pickle is kept in the details of a run."""
FOLDER = "parameters"
"""The folder beside the journal in which larger ones are, each in a file called as its run's id."""
MAX_STORED = 1_000_000_000
"""Up to how many bytes pickled parameters are kept at all."""

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
"""The positional and the keyword arguments of a call."""
AnyFlow = Defined[..., Any, Any]
F = TypeVar("F", bound=AnyFlow)


# Parameters ------------------------------------------------------------------------------------------


def parameters(flow: AnyFlow, arguments: Arguments, folder: Path, run_id: str) -> dict[str, Any]:
    """Return the arguments of a call, those left at their defaults too, as they are recorded."""
    bound = flow._signature.bind(*arguments[0], **arguments[1])
    bound.apply_defaults()
    args, kwargs = calls.bind(flow.function, flow._signature, bound.args, bound.kwargs)
    try:
        return _kept((args, kwargs), folder, run_id)
    except DflowError as error:
        return {"unrecorded": {"": str(error)}}
    except Exception:
        return _kept_in_part(flow, args, kwargs, folder, run_id)


def _kept_in_part(
    flow: AnyFlow, args: tuple[Any, ...], kwargs: dict[str, Any], folder: Path, run_id: str
) -> dict[str, Any]:
    """Record the parameters that can be pickled, and of the others the names and types."""
    unrecorded: dict[str, str] = {}
    for number, value in enumerate(args):
        if (problem := _problem(value)) is not None:
            unrecorded[f"#{number + 1}"] = f"'#{number + 1}' is {problem}"
    for name, value in list(kwargs.items()):
        if (problem := _problem(value)) is not None:
            del kwargs[name]
            if value is not flow._signature.parameters[name].default:
                unrecorded[name] = f"'{name}' is {problem}"
    if args and unrecorded:
        return {"unrecorded": unrecorded}
    kept = _kept((args, kwargs), folder, run_id)
    return kept | ({"unrecorded": unrecorded} if unrecorded else {})


def _problem(value: Any) -> str | None:
    try:
        pickling.dumps(value)
    except Exception as error:
        kind = type(value)
        return f"a '{kind.__module__}.{kind.__qualname__}' ({error})"
    return None


def _kept(value: Arguments, folder: Path, run_id: str) -> dict[str, Any]:
    data = pickling.dumps_small(value, MAX_INLINE)
    if data is not None:
        return {"pickled_parameters": _text(data)}
    packed = files.pack(value, "pickle")
    if packed.size > MAX_STORED:
        raise NotResumable(f"they take more than {MAX_STORED:,} bytes")
    stored = files.write(packed, str(folder), run_id)
    return {"stored_parameters": plain(stored)}


def arguments_of(details: Mapping[str, Any], flow: AnyFlow, name: str) -> Arguments:
    """Return the arguments that were recorded, for a call of `flow`, which may be bound to an instance.

    Raises `NotResumable` if they were not recorded, or cannot be read.
    """
    own = _first_name(flow) if flow._bound else None
    missing = {k: v for k, v in (details.get("unrecorded") or {}).items() if k != own}
    found = _read(details, name)
    if missing or found is None:
        raise NotResumable(
            f"The parameters of run '{name}' could not be recorded{_why(missing.values())}. "
            "Run the flow again with the same parameters."
        )
    args, kwargs = found
    if own is not None and not args:
        return (), {own: flow._bound[0], **{k: v for k, v in kwargs.items() if k != own}}
    return args, kwargs


def _why(problems: Iterable[str]) -> str:
    told = "; ".join(problems)
    return f": {told}" if told else ""


def how_to_resume(flow: AnyFlow, details: Mapping[str, Any], run: str) -> str | None:
    """Return what resumes a run that goes by `run`: a command, or a call; None if nothing does."""
    place: origins.Entrypoint = details["entrypoint"]
    unrecorded = dict(details.get("unrecorded") or {})
    if flow._bound and unrecorded.pop(_first_name(flow), None) is not None:
        method = origins.called_by(place).rpartition(".")[2]
        return None if unrecorded else f'the_object.{method}.resume("{run}")'
    if unrecorded:
        return None
    if place.get("nameless"):
        return f'{origins.called_by(place)}.resume("{run}")'
    return f"dflow resume {run}"


def warning(flow: AnyFlow, details: Mapping[str, Any], run: str) -> str | None:
    """Return what to say when a run begins that cannot be resumed by its name, or not at all."""
    place: origins.Entrypoint = details["entrypoint"]
    problems = _why((details.get("unrecorded") or {}).values())
    call = how_to_resume(flow, details, run)
    if call is None:
        return f"This run cannot be resumed: its parameters cannot be recorded{problems}."
    if problems:
        return (
            f"Only {call} resumes this run, as not all of its parameters can be recorded{problems}."
        )
    if place.get("nameless") and not origins.interactive():
        return f"`dflow resume` will not find this flow: {place['nameless']}. Go on with: {call}"
    return None


def _first_name(flow: AnyFlow) -> str | None:
    return next(iter(flow._signature.parameters), None)


def _read(details: Mapping[str, Any], name: str) -> Arguments | None:
    text, stored = details.get("pickled_parameters"), details.get("stored_parameters")
    try:
        if stored is not None:
            place = build(Stored, stored)
            found: Arguments = files.read(place, f"{name}: parameters")
            return found
        return None if text is None else _loaded(text)
    except Exception as error:
        raise NotResumable(
            f"The recorded parameters of run '{name}' cannot be read: {error!r}. "
            "Run the flow again with the same parameters."
        ) from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _loaded(text: str) -> Any:
    return pickling.loads(base64.b64decode(text))


# Options and runner ------------------------------------------------------------------------------------


def options(flow: AnyFlow, place: origins.Entrypoint) -> dict[str, Any]:
    """Return the options in which a flow differs from that to which its name leads, as they are recorded."""
    found = None if place.get("nameless") else origins.defined_as(place)
    if found is None or found._options is flow._options:
        return {}
    kept: dict[str, str] = {}
    for field in fields(flow._options):
        mine, others = getattr(flow._options, field.name), getattr(found._options, field.name)
        if mine is not others and not _equal(mine, others):
            text = _small(mine)
            if text is not None:
                kept[field.name] = text
    return {"pickled_options": kept} if kept else {}


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False


def _small(value: Any) -> str | None:
    try:
        data = pickling.dumps_small(value, MAX_INLINE)
    except Exception:
        return None  # a runner on a live cluster, a hook that is a closure
    return None if data is None else _text(data)


def with_options(flow: F, details: Mapping[str, Any]) -> F:
    """Return a flow with the options that the one had which began the run. Raises `NotResumable`."""
    kept = details.get("pickled_options")
    if not kept:
        return flow
    return flow.with_options(**{name: _option(name, text) for name, text in kept.items()})


def _option(name: str, text: str) -> Any:
    try:
        return _loaded(text)
    except Exception as error:
        raise NotResumable(
            f"The option {name}= with which this run began cannot be read here: {error!r}. "
            "Resume it with a flow that has it: my_flow.with_options(...).resume(...)."
        ) from error


def runner(given: Any, default: str) -> dict[str, Any]:
    """Return what is recorded of the runner that a flow names, or of the `default` one if it names none."""
    if given is None or isinstance(given, str):
        return {"runner": {"name": given or default, "by_default": given is None}}
    described: dict[str, Any] = {"kind": type(given).__name__}
    if isinstance(given, type):
        described = {"kind": given.__name__}
    elif callable(getattr(given, "describe", None)):
        described = dict(given.describe())
    text = _small(given)
    return {"runner": described} | ({} if text is None else {"pickled_runner": text})


@dataclass(frozen=True, slots=True)
class ChosenRunner:
    """Which runner a run that is taken up again gets: the flow's own, else the one with which it began.

    Unless the present settings name one expressly (`set_now`), where it began with that of the settings.
    """

    own: Any
    details: Mapping[str, Any]
    set_now: bool

    def choose(self) -> Any:
        """Return a runner, its name, or None for that of the settings."""
        if self.own is not None:
            return self.own
        text = self.details.get("pickled_runner")
        if text is not None:
            return _option("task_runner", text)
        known: Mapping[str, Any] = self.details.get("runner") or {}
        if known.get("by_default") and self.set_now:
            return None
        return known.get("name")
