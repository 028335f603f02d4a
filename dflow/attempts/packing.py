"""Calls as bytes, for runners whose attempts run in other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

from dflow.attempts.calls import Call, Quoted
from dflow.attempts.functions import FunctionRef, refer, resolve
from dflow.core.plain import Plain
from dflow.errors import SerializationError
from dflow.results.pickling import dumps, loads


class PackedCall(Plain, frozen=True):
    """A call that can travel. `shared` is the pickle that all items of a map have in common."""

    function: FunctionRef
    arguments: bytes
    shared: bytes | None = None
    has_refs: bool = False
    named: bytes | None = None


class Packer:
    """Packs calls for one kind of destination, and remembers what it has packed already."""

    def __init__(self, importable: Callable[[ModuleType], bool], script_there: bool) -> None:
        self._importable = importable
        self._script_there = script_there
        self._functions: dict[Callable[..., Any], FunctionRef] = {}
        self._shared: tuple[Mapping[str, Any], bytes] | None = None

    def pack(self, call: Call) -> PackedCall:
        """Return a call as bytes.

        Raises `SerializationError` that names the parameter, its type and the path to what cannot travel.
        """
        try:
            arguments = self._dumps((call.args, dict(call.kwargs)))
        except Exception as error:
            raise self._explain(call, error) from None
        return PackedCall(
            self._refer(call.function),
            arguments,
            self._pack_shared(call),
            call.has_refs,
            self._pack_rule(call),
        )

    def _pack_rule(self, call: Call) -> bytes | None:
        if call.named is None:
            return None
        try:
            return self._dumps(call.named)
        except Exception as error:
            what, argument, _ = call.named
            raise SerializationError(
                f"{what}: {argument}= cannot travel to a worker, where it makes the name ({error}). "
                "Define it in a module, or name the runs by a template."
            ) from None

    def _refer(self, function: Callable[..., Any]) -> FunctionRef:
        if function not in self._functions:
            self._functions[function] = refer(function, self._importable, self._script_there)
        return self._functions[function]

    def _pack_shared(self, call: Call) -> bytes | None:
        if not call.shared:
            return None
        if self._shared is None or self._shared[0] is not call.shared:
            try:
                self._shared = call.shared, self._dumps(dict(call.shared))
            except Exception as error:
                raise self._explain(call, error) from None
        return self._shared[1]

    def _dumps(self, value: Any) -> bytes:
        return dumps(value, script_by_reference=self._script_there)

    def _explain(self, call: Call, error: Exception) -> SerializationError:
        named = {f"#{i + 1}": value for i, value in enumerate(call.args)} | {
            **call.shared,
            **call.kwargs,
        }
        name = getattr(call.function, "__name__", str(call.function))
        for parameter, value in named.items():
            culprit = self._culprit(value, f"'{parameter}'")
            if culprit is not None:
                path, kind = culprit
                return SerializationError(
                    f"The argument {path} of task '{name}' cannot travel to a worker: "
                    f"it is a '{kind}' ({error}). Pass what it is made from, and make it in the task."
                )
        return SerializationError(f"The arguments of task '{name}' cannot travel: {error}.")

    def _culprit(self, value: Any, path: str) -> tuple[str, str] | None:
        """Return the path and the type of the innermost value that cannot be pickled, or None."""
        try:
            self._dumps(value)
        except Exception:
            for step, inner in _inside(value):
                found = self._culprit(inner, path + step)
                if found is not None:
                    return found
            return path, f"{type(value).__module__}.{type(value).__qualname__}"
        return None


def _inside(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Quoted):
        return [("", value.value)]
    if isinstance(value, dict):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{f.name}", getattr(value, f.name, None)) for f in fields(value)]
    if isinstance(getattr(value, "__dict__", None), dict):
        return [(f".{name}", item) for name, item in vars(value).items()]
    return []


def unpack(
    packed: PackedCall,
    shared: Mapping[str, Any] | None = None,
    function: Callable[..., Any] | None = None,
) -> Call:
    """Return the call that was packed; `shared` and `function` are there if they were loaded before.

    Raises `SerializationError` when the function or an argument cannot be loaded here.
    """
    if function is None:
        function = resolve(packed.function)
    try:
        args, kwargs = loads(packed.arguments)
        if shared is None:
            shared = loads(packed.shared) if packed.shared is not None else {}
        named = loads(packed.named) if packed.named is not None else None
    except Exception as error:
        name = getattr(function, "__name__", str(function))
        raise SerializationError(
            f"The arguments of task '{name}' cannot be loaded on the worker: {error!r}. "
            "Check that the workers have the same packages as the driver."
        ) from error
    return Call(function, args, kwargs, shared, packed.has_refs, named)
