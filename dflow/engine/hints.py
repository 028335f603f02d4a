"""From a parameter's annotation to the pydantic adapter that its values go through."""

from __future__ import annotations

import collections
import functools
import inspect
import sys
import typing
from collections import abc
from collections.abc import Callable
from contextlib import suppress
from types import GenericAlias, MethodType, SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    NewType,
    ParamSpecArgs,
    ParamSpecKwargs,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import typing_extensions
from pydantic import BeforeValidator, ConfigDict, InstanceOf, TypeAdapter
from pydantic_core import PydanticCustomError

Adapter = TypeAdapter[tuple[Any]]
"""Validates one value, in a tuple: so it takes our configuration, whatever the value's type is."""

_CONFIG = ConfigDict(
    arbitrary_types_allowed=True,  # classes that pydantic does not know are checked by isinstance
    extra="forbid",  # by default pydantic drops keys that it does not know, and says nothing
)
_STREAMS = (abc.Iterable, abc.Iterator, abc.Generator)
_SEQUENCES = (
    list, tuple, set, frozenset, collections.deque,
    abc.Sequence, abc.MutableSequence, abc.Set, abc.MutableSet,
)  # fmt: skip
_MAPPINGS = (
    dict, collections.defaultdict, collections.OrderedDict, abc.Mapping, abc.MutableMapping,
)  # fmt: skip
_UNPACKS = (typing.Unpack, typing_extensions.Unpack)  # pydantic brings the second one along
_ARRAYS = ("__array__", "__dlpack__", "__dataframe__")
"""What arrays, tensors and data frames have, by the protocols in which they exchange their data."""


class Names:
    """The names that the annotations of a function may use, where it was written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        written = _written(function)
        module = sys.modules.get(getattr(written, "__module__", None) or "")
        around = vars(module) if module is not None else {}
        self._globals: dict[str, Any] = getattr(written, "__globals__", around)
        self._locals = {each.__name__: each for each in getattr(written, "__type_params__", ())}
        code, closure = getattr(written, "__code__", None), getattr(written, "__closure__", None)
        if code is not None:
            for name, cell in zip(code.co_freevars, closure or (), strict=False):
                with suppress(ValueError):  # a name that has no value yet
                    self._locals[name] = cell.cell_contents

    def resolved(self, annotation: Any) -> Any:
        """Return an annotation with what its texts speak of. Raises NameError and whatever else it raises."""
        holder = SimpleNamespace(__annotations__={"it": annotation})
        return get_type_hints(holder, self._globals, self._locals, include_extras=True)["it"]


def _written(function: Any) -> Any:
    """Return the function that somebody wrote, behind wrappers, partials and methods."""
    if isinstance(function, functools.partial):
        return _written(function.func)
    if hasattr(function, "__wrapped__"):
        return _written(inspect.unwrap(function))
    if isinstance(function, MethodType):
        return _written(function.__func__)
    return function


def adapter(hint: Any, kind: Any) -> Adapter | None:
    """Return what validates a parameter of this kind, or None where nothing is to be validated.

    Raises whatever pydantic raises for what it has no schema for.
    """
    if isinstance(hint, ParamSpecArgs | ParamSpecKwargs) or hint is Any or hint is object:
        return None
    unpacked = get_args(hint)[0] if get_origin(hint) in _UNPACKS else None
    if kind is inspect.Parameter.VAR_POSITIONAL:
        if unpacked is not None:
            return None
        whole: Any = GenericAlias(tuple, (_checked(hint), ...))
    elif kind is inspect.Parameter.VAR_KEYWORD:
        whole = GenericAlias(dict, (str, _checked(hint))) if unpacked is None else unpacked
    else:
        whole = _checked(hint)
    wrapped: Any = GenericAlias(tuple, (whole,))
    made: Adapter = TypeAdapter(wrapped, config=_CONFIG)
    return made if made.pydantic_complete else None


def _checked(hint: Any) -> Any:
    """Return an annotation as pydantic is to read it, at any depth.

    Pydantic makes a one-shot iterator from what is annotated as an iterable: that is left as it is, if it
    is one. It makes a list from an array, element by element, and from the column names of a data frame:
    that is refused.
    """
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        inner = _checked(arguments[0])
        return hint if inner is arguments[0] else Annotated[(inner, *hint.__metadata__)]
    if kind is Union or kind is UnionType:
        return Union[tuple(_checked(each) for each in arguments)]  # noqa: UP007  (made at run time)
    if isinstance(hint, NewType):
        return _checked(hint.__supertype__)
    if not isinstance(kind, type):
        return hint
    if kind in _STREAMS:
        return Annotated[kind, InstanceOf()]  # type: ignore[type-arg]  # it is that which it annotates
    if kind in _SEQUENCES or kind in _MAPPINGS:
        inside = tuple(_checked(each) for each in arguments)
        changed = any(a is not b for a, b in zip(inside, arguments, strict=True))
        whole: Any = GenericAlias(kind, inside) if changed else hint
        return Annotated[whole, _NO_ARRAY] if kind in _SEQUENCES else whole
    return hint


def _refuse_arrays(value: Any) -> Any:
    if any(hasattr(type(value), name) for name in _ARRAYS):
        raise PydanticCustomError(
            "array_for_list",
            "An array or a data frame is not taken for a list: convert it, or annotate the parameter "
            "with its type",
        )
    return value


_NO_ARRAY = BeforeValidator(_refuse_arrays)
REFUSING = f"function-before[{_refuse_arrays.__name__}(), "
"""How pydantic names, in the place of an error, what refuses arrays."""
