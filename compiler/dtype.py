"""Element types and NumPy's promotion between them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from pierian.compiler.errors import DTypeError


class DType:
    """An element type. Instances are unique: compare with `is` or `==`.

    Attributes:
        name: the name NumPy gives it, also the name in IR texts.
        kind: `f` float, `i` signed integer, `b` boolean.
        bits: storage size; a boolean is stored in one byte.
        llvm: the type of one element in LLVM IR as stored in memory.
    """

    __slots__ = ("_numpy", "bits", "kind", "llvm", "name")

    def __init__(self, name: str, kind: str, bits: int, llvm: str) -> None:
        self.name = name
        self.kind = kind
        self.bits = bits
        self.llvm = llvm
        self._numpy = np.dtype(name)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype."""
        return self._numpy

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind == "i"

    @property
    def is_bool(self) -> bool:
        return self.kind == "b"

    def __repr__(self) -> str:
        return f"pierian.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self.name,)


float32 = DType("float32", "f", 32, "float")
float64 = DType("float64", "f", 64, "double")
int32 = DType("int32", "i", 32, "i32")
int64 = DType("int64", "i", 64, "i64")
bool_ = DType("bool", "b", 8, "i8")

ALL: tuple[DType, ...] = (float32, float64, int32, int64, bool_)
_BY_NAME = {dtype.name: dtype for dtype in ALL}
_PYTHON = {bool: bool_, int: int32, float: float32}


@functools.lru_cache(maxsize=256)
def as_dtype(dtype: Any) -> DType:
    """The element type meant by a DType, a name, a NumPy dtype or a Python scalar type.

    Raises:
        DTypeError: an element type that Pierian does not have.
    """
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, type) and dtype in _PYTHON:
        return _PYTHON[dtype]
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    found = _BY_NAME.get(name)
    if found is None:
        raise DTypeError(f"element type {name!r} is not supported", expected=", ".join(_BY_NAME))
    return found


@functools.lru_cache(maxsize=256)
def promote(first: DType, second: DType) -> DType:
    """The type NumPy computes in when `first` meets `second` (both strong, of arrays)."""
    if first is second:
        return first
    return as_dtype(np.promote_types(first.numpy, second.numpy))


def promote_scalar(value: bool | int | float, other: DType) -> DType:
    """The type of a Python scalar that meets an array of type `other` (NumPy 2's weak scalars, NEP 50)."""
    if isinstance(value, bool):
        return other
    if isinstance(value, int):
        return int64 if other.is_bool else other
    return other if other.is_float else float64
