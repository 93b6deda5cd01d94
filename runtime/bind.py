"""Arrays handed in from outside against the types a program takes: conversion, checks, and the sizes they imply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, Symbolic, evaluate, lower_bound, symbols
from pierian.compiler.errors import FeedError
from pierian.compiler.shape import TensorType, format_shape

Array = np.ndarray[Any, Any]


def as_array(given: Any, type_: TensorType, name: str) -> Array:
    """`given` as a dense array of the wanted element type; the same object where it already is one.

    Arrays of other libraries are read where they lie (by `numpy()`, `__array__` or DLPack), read-only ones too: nothing is written
    to an input. A copy is made of what has another element type, is not in C order or not aligned to its elements, and of lists
    and scalars. Conversions within a kind (float64 to float32) and from integers to floats are made; those that lose the kind
    (float to integer) and integers out of range are refused.

    Raises:
        FeedError: not an array, on another device, an element type or integers that do not convert, or a shape that does not fit.
    """
    wanted = type_.dtype.numpy
    try:
        array = _seen_by_numpy(given)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        raise FeedError(f"the value fed to {name!r} is not an array", got=repr(given)[:80], advice=str(error)) from None
    if array.dtype != wanted:
        weak = not hasattr(given, "dtype")
        allowed = np.can_cast(array.dtype, wanted, "same_kind") or (weak and array.size == 0)
        if not allowed:
            raise FeedError(
                f"the value fed to {name!r} has the wrong element type", got=array.dtype, expected=type_.dtype,
                advice=f"convert it with .astype({type_.dtype.name!r})",
            )  # fmt: skip
        given_numbers, array = array, array.astype(wanted)
        if wanted.kind in "iu" and not np.array_equal(array, given_numbers):
            outside = given_numbers[array != given_numbers].flat[0]
            raise FeedError(
                f"the value fed to {name!r} has integers out of range", got=f"{outside} in {given_numbers.dtype}",
                expected=type_.dtype,
            )  # fmt: skip
    check_shape(array, type_, name)
    dense = np.require(array, requirements=("C", "ALIGNED"))
    # Native code knows an element type by its object; equal ones may be others.
    return dense if dense.dtype is wanted else dense.view(wanted)


def _seen_by_numpy(given: Any) -> Array:
    """An array over the memory of an array of any library; a new one of anything else."""
    if isinstance(given, np.ndarray):
        return np.asarray(given)
    convert = getattr(given, "numpy", None)
    if convert is not None:
        return np.asarray(convert())
    if hasattr(given, "__dlpack__") and not hasattr(given, "__array__"):
        return np.from_dlpack(given)
    return np.asarray(given)


def check_shape(array: Array, type_: TensorType, name: str) -> None:
    """Refuse a rank or a known size that differs.

    Raises:
        FeedError: the shape does not fit.
    """
    fits = array.ndim == type_.rank and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(type_.shape, array.shape, strict=True)
    )
    if not fits:
        raise FeedError(
            f"the value fed to {name!r} has the wrong shape", got=format_shape(array.shape),
            expected=format_shape(type_.shape),
        )  # fmt: skip


def solve_sizes(
    types: Sequence[TensorType], arrays: Sequence[Array], names: Sequence[str], checks: Sequence[tuple[Dim, Dim, str]]
) -> dict[str, int]:
    """The value of every size symbol, from the shapes of the arrays.

    Raises:
        FeedError: two arrays disagree on a size, or a size that an operator relies on does not hold.
    """
    values: dict[str, int] = {}
    origin: dict[str, str] = {}
    later: list[tuple[Dim, int, str]] = []
    for type_, array, name in zip(types, arrays, names, strict=True):
        check_shape(array, type_, name)
        for axis, (dim, size) in enumerate(zip(type_.shape, array.shape, strict=True)):
            place = f"{name!r} axis {axis}"
            if isinstance(dim, int):
                continue
            if _is_symbol(dim):
                known = values.setdefault(str(dim), size)
                origin.setdefault(str(dim), place)
                if known != size:
                    raise FeedError(
                        f"size {dim} has two values", got=f"{known} from {origin[str(dim)]}, {size} from {place}"
                    )
            else:
                later.append((dim, size, place))
    for dim, size, place in later:
        if symbols(dim) <= values.keys() and evaluate(dim, values) != size:
            raise FeedError(f"size {dim} does not hold", where=place, got=size, expected=evaluate(dim, values))
    for first, second, reason in checks:
        if symbols(first) | symbols(second) <= values.keys():
            left, right = evaluate(first, values), evaluate(second, values)
            if left == right:
                continue
            least = lower_bound(first, second)
            if least is not None:
                raise FeedError(
                    "a size is too small", where=reason, got=f"{second} = {right}",
                    expected=f"at least {least}" + ("" if isinstance(least, int) else f" = {left}"),
                )  # fmt: skip
            raise FeedError(
                "sizes that must be equal differ", where=reason, got=f"{first} = {left}, {second} = {right}"
            )
    return values


def _is_symbol(dim: Symbolic) -> bool:
    return str(dim).isidentifier()
