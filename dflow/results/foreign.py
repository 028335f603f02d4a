"""What values of well-known libraries are made of, as plain values and arrays.

A library is looked at only if the user has imported it. Nothing large is copied, but for what a library
keeps in a form of its own, and for columns of Python objects.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

BLOCK: Final = 4 * 2**20
"""Bytes of an array that are made contiguous at a time."""


class NoForm(Exception):
    """There is no form of this value that would be the same in another process."""


@dataclass(frozen=True, slots=True)
class Array:
    """A NumPy array, of whatever class, to be taken by its buffer."""

    array: Any


@dataclass(frozen=True, slots=True)
class Items:
    """Many values, most of which are alike."""

    items: list[Any]


Parts = Iterable[Any]


def parts_of(value: Any) -> Parts | None:
    """Return what a value of a library consists of, or None if it is not one that is known here."""
    for name, parts in _LIBRARIES:
        module = sys.modules.get(name)
        if module is not None:
            found = parts(module, value)
            if found is not None:
                return found
    return None


# NumPy ---------------------------------------------------------------------------------------------


def is_array(numpy: Any, value: Any, *, deep: bool) -> bool:
    """Tell whether a value is an array that consists of its buffer; with `deep` also one in a file."""
    return type(value) is numpy.ndarray or (deep and type(value) is numpy.memmap)


def pieces(array: Any) -> Iterator[memoryview]:
    """Yield the bytes of an array in the order of C; one that lies otherwise is copied in small blocks."""
    if not array.nbytes:
        return
    if array.flags.c_contiguous:
        yield memoryview(array.reshape(-1).view("u1"))
    elif array.nbytes <= BLOCK:
        yield memoryview(array.copy(order="C").reshape(-1).view("u1"))
    else:
        rows = max(1, BLOCK * len(array) // array.nbytes)
        for start in range(0, len(array), rows):
            block = array[start : start + rows]
            yield from pieces(block[0] if len(block) == 1 and block.ndim > 1 else block)


# pandas --------------------------------------------------------------------------------------------


def _of_pandas(pandas: Any, value: Any) -> Parts | None:
    if isinstance(value, pandas.DataFrame):
        return _of_frame(pandas, value)
    if isinstance(value, pandas.Series):
        return (
            value.name,
            *_of_pandas_index(pandas, value.index),
            *_column(pandas, value),
            value.attrs,
        )
    if isinstance(value, pandas.Index):
        return _of_pandas_index(pandas, value)
    if isinstance(value, pandas.api.extensions.ExtensionArray):
        return _column(pandas, value)
    return None


def _of_frame(pandas: Any, frame: Any) -> Iterator[Any]:
    yield frame.shape
    yield frame.attrs
    yield from _of_pandas_index(pandas, frame.columns)
    yield from _of_pandas_index(pandas, frame.index)
    for number in range(frame.shape[1]):
        yield from _column(pandas, frame.iloc[:, number])


def _of_pandas_index(pandas: Any, index: Any) -> Iterator[Any]:
    yield list(index.names)
    if isinstance(index, pandas.RangeIndex):
        yield range(index.start, index.stop, index.step)
    elif isinstance(index, pandas.MultiIndex):
        for level in range(index.nlevels):
            yield from _column(pandas, index.get_level_values(level))
    else:
        yield from _column(pandas, index)


def _column(pandas: Any, column: Any) -> Iterator[Any]:
    """Yield what a column consists of, in whatever kind of array pandas keeps it."""
    dtype = column.dtype
    yield repr(dtype)
    if isinstance(dtype, pandas.CategoricalDtype):
        categorical = getattr(column, "cat", column)
        yield Array(
            categorical.codes.to_numpy() if column is not categorical else categorical.codes
        )
        yield from _column(pandas, dtype.categories)
        yield bool(dtype.ordered)
    elif isinstance(dtype, pandas.DatetimeTZDtype):
        yield Array(column.to_numpy(dtype=f"M8[{dtype.unit}]"))
    elif hasattr(dtype, "hasobject") and not dtype.hasobject:
        yield Array(column.to_numpy())
    elif getattr(dtype, "numpy_dtype", None) is not None and dtype.numpy_dtype.kind in "iufb":
        missing = column.isna()
        yield Array(missing if not hasattr(missing, "to_numpy") else missing.to_numpy())
        yield Array(column.fillna(dtype.type(0)).to_numpy(dtype=dtype.numpy_dtype))
    else:
        missing = pandas.isna(column)
        yield Array(missing if not hasattr(missing, "to_numpy") else missing.to_numpy())
        items = column.to_numpy(dtype=object).tolist()
        yield Items([None if gone else item for item, gone in zip(items, missing, strict=True)])
        yield Items([repr(item) for item, gone in zip(items, missing, strict=True) if gone])


# polars --------------------------------------------------------------------------------------------


def _of_polars(polars: Any, value: Any) -> Parts | None:
    if isinstance(value, polars.Series):
        return _of_series(polars, value)
    if isinstance(value, polars.DataFrame):
        return _of_polars_frame(polars, value)
    if isinstance(value, polars.LazyFrame):
        raise NoForm("a lazy frame of polars has no content yet: pass what .collect() gives")
    return None


def _of_polars_frame(polars: Any, frame: Any) -> Iterator[Any]:
    yield frame.shape
    for series in frame.get_columns():
        yield from _of_series(polars, series)


def _of_series(polars: Any, series: Any) -> Iterator[Any]:
    yield series.name
    yield repr(series.dtype)
    plain = series.dtype.is_numeric() and not series.dtype.is_decimal()
    if plain or series.dtype.is_temporal() or series.dtype == polars.Boolean:
        if series.null_count():
            yield Array(series.is_null().to_numpy())
        physical = series.to_physical()
        empty = False if series.dtype == polars.Boolean else 0
        yield Array(physical.fill_null(empty).rechunk().to_numpy())
    else:
        yield Items(series.to_list())


# torch ---------------------------------------------------------------------------------------------


def _of_torch(torch: Any, value: Any) -> Parts | None:
    if isinstance(value, torch.Tensor):
        return _of_tensor(torch, value)
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format):
        return (str(value),)
    return None


def _of_tensor(torch: Any, tensor: Any) -> Iterator[Any]:
    if tensor.is_quantized or tensor.device.type == "meta":
        raise NoForm("a quantized or meta tensor of torch has no canonical form")
    yield (
        str(tensor.dtype),
        tuple(tensor.shape),
        tensor.device.type,
        tensor.requires_grad,
        str(tensor.layout),
    )
    plain = tensor.detach()
    if plain.layout is torch.sparse_coo:
        plain = plain.coalesce()
        yield from (plain.indices(), plain.values())
    elif plain.layout is not torch.strided:
        plain = plain.to_sparse_coo().coalesce()
        yield from (plain.indices(), plain.values())
    else:
        plain = plain.resolve_conj().resolve_neg().cpu().contiguous()
        yield Array(plain.reshape(-1).view(torch.uint8).numpy())


# scipy ---------------------------------------------------------------------------------------------


def _of_sparse(sparse: Any, value: Any) -> Parts | None:
    if not sparse.issparse(value):
        return None
    names = _SPARSE.get(value.format)
    if names is None:
        value, names = value.tocoo(), _SPARSE["coo"]
    return (value.format, value.shape, *(getattr(value, name) for name in names))


_SPARSE = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "dia": ("data", "offsets"),
    "coo": ("data", "coords"),
}

_LIBRARIES: tuple[tuple[str, Callable[[Any, Any], Parts | None]], ...] = (
    ("pandas", _of_pandas),
    ("polars", _of_polars),
    ("torch", _of_torch),
    ("scipy.sparse", _of_sparse),
)
