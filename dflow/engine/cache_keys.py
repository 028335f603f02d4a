"""Keys of cached calls, computed where the call is made, as far as that is possible there.

What other task runs produce is not hashed: it stands in the key as a slot, and the driver fills in where the
value comes from. A policy or a function of the user's gets the values themselves: at once if there are no
futures among them, else it is the driver that asks it, when they are there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dflow.attempts.calls import ATOMS, STAND_INS, Call, Quoted, swap
from dflow.attempts.context import current
from dflow.attempts.failures import Failure
from dflow.attempts.parameters import by_name
from dflow.core.events import MapCreated, TaskCreated
from dflow.core.values import Maker
from dflow.engine.about import About
from dflow.engine.cache_options import Cached
from dflow.engine.context import keeper_in
from dflow.engine.key_questions import Key, Question, complain, for_task
from dflow.messages import Caching, CallOptions, LateKey, PartialKey, Ref
from dflow.results.fingerprints import NoFingerprint
from dflow.results.keys import Hashed, KeyContext, Slot, TaskRunInKey, file_in_key, hashed
from dflow.results.policies import CachePolicy


@dataclass(slots=True)
class Keys:
    """Computes the keys of the calls of one submission of a task."""

    task: Any
    policy: CachePolicy
    _known: dict[str, tuple[Hashed, tuple[str, ...]]] = field(default_factory=dict)
    _flow_parameters: dict[str, Any] | None = None
    _names: _Names | None = None

    def of(self, call: Call, run: TaskRunInKey) -> Key:
        """Return the key of a call; None, with a warning, if it has none."""
        try:
            if self.policy.needs_values:
                return self._asked(call, run)
            return self._hashed(call, run)
        except Exception as problem:
            complain(self.task.name, problem)
            return None

    def _asked(self, call: Call, run: TaskRunInKey) -> Key:
        question = Question(self.task, self.policy, call, run, self._parameters())
        if call.has_refs and _refers(call):
            return LateKey(question)
        key = question.answer({})
        return None if key is None else PartialKey(key)

    def _hashed(self, call: Call, run: TaskRunInKey) -> Key:
        if self._names is None:
            self._names = _Names.of(call.function)
        inputs: dict[str, Hashed] = {}
        refs: list[str] = []
        given: list[tuple[str, bytes]] = []
        for name, value in sorted(self._names.inputs(call).items()):
            if not self.policy.uses(name):
                continue
            known = self._known.get(name)
            if known is None:
                known = _argument(name, value, call.has_refs)
                if name in call.shared or not (name in call.kwargs or call.args):
                    self._known[name] = known
            inputs[name] = known[0]
            refs += known[1]
            if type(value) not in ATOMS and not known[1]:
                given.append((name, known[0].digest))
        context = KeyContext(self.task, run, dict(inputs))
        key = self.policy.compute_key(context, inputs, self._parameters())
        key = for_task(self.policy, call.function, key)
        return None if key is None else PartialKey(key, tuple(refs), tuple(given))

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters of the flow run around, if they play a part; each is hashed only once."""
        if self._flow_parameters is None:
            self._flow_parameters = {}
            if self.policy.uses_flow:
                found = _flow_parameters()
                if not self.policy.needs_values:
                    found = {
                        name: hashed("flow parameter", name, item) for name, item in found.items()
                    }
                self._flow_parameters = found
        return self._flow_parameters


def with_keys(
    options: CallOptions, task: Any, event: TaskCreated | MapCreated, calls: Sequence[Call]
) -> CallOptions:
    """Return options with the keys of the calls of one submission, if the task is cached."""
    cached: Cached | None = task.cached
    if cached is None:
        return options
    keys = Keys(task, cached.policy)
    found = []
    if isinstance(event, MapCreated):
        named = [(item.task_run_id, item.name) for item in event.items]
    else:
        named = [(event.task_run_id, event.name)]
    for (task_run_id, name), call in zip(named, calls, strict=True):
        run = TaskRunInKey(task_run_id, name, event.task_name, event.flow_run_id, event.tags)
        found.append(keys.of(call, run))
    caching = Caching(
        keys=tuple(found),
        seconds=cached.seconds,
        refresh=cached.refresh,
        storage=cached.policy.key_storage,
        maker=Maker(file_in_key(task.function), event.source)
        if cached.policy.per_task
        else Maker(),
    )
    return replace(options, caching=caching)


@dataclass(frozen=True, slots=True)
class _Names:
    """How the arguments of a function get their names: quickly, where all of them go by name."""

    function: Callable[..., Any]
    defaults: dict[str, Any] | None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> _Names:
        parameters = inspect.signature(function).parameters.values()
        plain = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return cls(function, defaults if plain else None)

    def inputs(self, call: Call) -> dict[str, Any]:
        """Return the arguments of a call by name, those left at their defaults included."""
        kwargs = {**call.shared, **call.kwargs}
        if self.defaults is None or call.args:
            return by_name(self.function, call.args, kwargs)
        return {**self.defaults, **kwargs}


def _argument(name: str, value: Any, has_refs: bool) -> tuple[Hashed, tuple[str, ...]]:
    """Return an argument by its hash, and the task runs whose values have slots in it."""
    refs: list[str] = []

    def change(stand_in: Any) -> Any:
        if isinstance(stand_in, Ref):
            refs.append(stand_in.task_run_id)
            return Slot(len(refs) - 1)
        if isinstance(stand_in, Failure):
            raise NoFingerprint(f"argument '{name}': it is the failure of '{stand_in.name}'")
        return stand_in.value

    if has_refs:
        value = swap(value, change, STAND_INS)
    return hashed("argument", name, value), tuple(refs)


def _refers(call: Call) -> bool:
    """Tell whether a call takes values of other task runs."""
    found: list[Any] = []

    def note(stand_in: Any) -> Any:
        if isinstance(stand_in, Ref):
            found.append(stand_in)
        return stand_in.value if isinstance(stand_in, Quoted) else None

    swap([list(call.args), dict(call.kwargs), dict(call.shared)], note, STAND_INS)
    return bool(found)


def _flow_parameters() -> dict[str, Any]:
    """Return the parameters of the flow run to which a call belongs that is made now."""
    context = current()
    if context is None:
        return {}
    about: About | None = context.notes.get("flow")
    if about is None:
        about = context.notes["flow"] = keeper_in(context).about(context.info.flow_run_id)
    return about.parameters()
