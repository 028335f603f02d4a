"""A pickle and the memory of its arrays as one file, from which the arrays need not be copied.

The file is a pickle itself: the call of `dflow.results.pickling.loads` with the inner pickle and a list of
bytearrays. So ``pickle.load`` reads it wherever dflow is installed; `parse`, which knows how it is built,
finds the same parts without copying them. Each begins at a multiple of `ALIGNMENT`, as arrays like it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pickle import PickleBuffer
from typing import Final

ALIGNMENT: Final = 64

# The opcodes of pickle, protocol 5, that are used here, by their names in `pickletools`.
_PROTO = b"\x80\x05"
_SHORT_BINUNICODE = b"\x8c"
_STACK_GLOBAL = b"\x93"
_BINBYTES8 = b"\x8e"
_BYTEARRAY8 = b"\x96"
_EMPTY_LIST, _MARK, _APPENDS = b"]", b"(", b"e"
_POP, _TUPLE2, _REDUCE, _STOP = b"0", b"\x86", b"R", b"."
_LENGTH = struct.Struct("<Q")


def _text(text: bytes) -> bytes:
    return _SHORT_BINUNICODE + bytes([len(text)]) + text


HEAD: Final = (
    _PROTO + _text(b"dflow.results.pickling") + _text(b"loads") + _STACK_GLOBAL + _BINBYTES8
)
"""How every container begins. Another form of file would call another function."""
_LIST: Final = _EMPTY_LIST + _MARK
_END: Final = _APPENDS + _TUPLE2 + _REDUCE + _STOP


def parts(pickled: bytes, buffers: Sequence[PickleBuffer]) -> list[bytes | memoryview]:
    """Return the parts of a container: none of the buffers is copied."""
    made: list[bytes | memoryview] = [HEAD + _LENGTH.pack(len(pickled)), pickled, _LIST]
    end = sum(map(len, made))
    for buffer in buffers:
        raw = buffer.raw()
        padding = _padding(end)
        made += [padding + _BYTEARRAY8 + _LENGTH.pack(raw.nbytes), raw]
        end += len(made[-2]) + raw.nbytes
    return [*made, _END]


def _padding(end: int) -> bytes:
    """Return what pushes bytes and drops them again, so that the buffer after it begins where it should."""
    around = len(_BINBYTES8) + 2 * _LENGTH.size + len(_POP) + len(_BYTEARRAY8)
    length = -(end + around) % ALIGNMENT
    return _BINBYTES8 + _LENGTH.pack(length) + bytes(length) + _POP


def parse(data: bytearray | memoryview) -> tuple[memoryview, list[memoryview]]:
    """Return the inner pickle and the buffers of a container, without copying. Raises ValueError."""
    reading = _Reading(memoryview(data))
    reading.expect(HEAD)
    pickled = reading.counted()
    reading.expect(_LIST)
    buffers = []
    while not reading.at(_END):
        reading.expect(_BINBYTES8)
        reading.counted()
        reading.expect(_POP + _BYTEARRAY8)
        buffers.append(reading.counted())
    reading.expect(_END)
    return pickled, buffers


class _Reading:
    """Goes through a container."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def at(self, what: bytes) -> bool:
        """Tell whether this is what comes next, up to the end."""
        return self._view[self._position :] == what

    def expect(self, what: bytes) -> None:
        """Go past something that must be there."""
        if self._take(len(what)) != what:
            raise ValueError(f"It is no result of dflow: byte {self._position} is another one.")

    def counted(self) -> memoryview:
        """Go past a length and as many bytes, and return them."""
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        return self._take(length)

    def _take(self, count: int) -> memoryview:
        taken = self._view[self._position : self._position + count]
        if len(taken) < count:
            raise ValueError("It is cut short.")
        self._position += count
        return taken
