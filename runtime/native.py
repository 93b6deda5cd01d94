"""Emitted functions as Python's own: called through its interface for C functions in 50 ns, where ctypes takes 300.

What such a function finds of Python's objects is the public binary interface (`pierian.compiler.codegen.layout`), which
`layout_holds` checks once per process.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from pierian.compiler.codegen import layout

_POSITIONAL = 0x80  # METH_FASTCALL


class _Method(ctypes.Structure):
    """A PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("text", ctypes.c_char_p)
    )  # fmt: skip


class NativeFunction:
    """An emitted function `ptr f(ptr self, ptr arguments, i64 count)`, which must stay in memory, as must this object."""

    def __init__(self, address: int) -> None:
        self._method = _Method(b"native", address, _POSITIONAL, None)

    def bound_to(self, frame: int) -> Callable[..., int]:
        """A Python function whose `self` holds the address of a frame (see `pierian.compiler.codegen.binding`)."""
        made: Callable[..., int] = _new_function()(self._method, frame.to_bytes(8, "little"), None)
        return made


def frame_functions(light: bool) -> list[int]:
    """Addresses of what emitted functions call of Python: to let other threads run and to go on, none for those that soon return,
    and to make a number."""
    threads = [0, 0] if light else [_address("PyEval_SaveThread"), _address("PyEval_RestoreThread")]
    return [*threads, _address("PyLong_FromLong")]


def _address(name: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


@functools.lru_cache(maxsize=1)
def _new_function() -> Any:
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.argtypes, make.restype = [ctypes.POINTER(_Method), ctypes.py_object, ctypes.c_void_p], ctypes.py_object
    return make


@functools.lru_cache(maxsize=1)
def layout_holds() -> bool:
    """Whether arrays, tuples, lists and bytes lie in memory as `layout` says."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    holder, listed, packed = (array,), [array], bytes(range(1, 9))

    def word(address: int) -> int:
        return ctypes.c_size_t.from_address(address).value

    if ctypes.sizeof(ctypes.c_size_t) != 8 or not hasattr(ctypes, "pythonapi"):
        return False
    base = id(array)
    shape = word(base + layout.ARRAY_SHAPE)
    return (
        word(base + layout.OBJECT_TYPE) == id(np.ndarray)
        and word(id(holder) + layout.TUPLE_SIZE) == 1
        and word(id(holder) + layout.TUPLE_ITEMS) == base
        and word(word(id(listed) + layout.LIST_ITEMS)) == base
        and word(id(packed) + layout.BYTES_ITEMS) == int.from_bytes(packed, "little")
        and word(base + layout.ARRAY_DATA) == array.ctypes.data
        and ctypes.c_int.from_address(base + layout.ARRAY_RANK).value == 2
        and (word(shape), word(shape + 8)) == (2, 3)
        and word(base + layout.ARRAY_DTYPE) == id(np.dtype("float32"))
        and ctypes.c_int.from_address(base + layout.ARRAY_FLAGS).value & 0x101 == 0x101
    )
