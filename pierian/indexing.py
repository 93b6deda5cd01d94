"""NumPy-style indexing of tensors, by slices, axes put in and taken out, and gathers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pierian.compiler.dim import Dim
from pierian.compiler.errors import ArgumentError
from pierian.compiler.graph.builder import current
from pierian.compiler.graph.node import Value

if TYPE_CHECKING:
    from pierian.tensor import Tensor


def index(x: Tensor, key: Any) -> Tensor:
    """`x[key]` for integers, slices, `...`, None, and at most one array of integers or booleans.

    Raises:
        ArgumentError: too many indices, an index outside its axis, or a kind that is not supported.
    """
    b = current()
    items = _expanded(key if isinstance(key, tuple) else (key,), x.type.rank)
    begin: list[Dim] = []
    end: list[Dim] = []
    step: list[int] = []
    dropped: list[int] = []
    added: list[int] = []
    gathers: list[tuple[int, Any]] = []
    axis = position = 0  # axis of x, axis of the result
    for item in items:
        if item is None:
            added.append(position)
            position += 1
            continue
        size = x.type.shape[axis]
        if isinstance(item, slice):
            first, last, stride = _slice(item, size)
            position += 1
        elif isinstance(item, (int, np.integer)) and not isinstance(item, bool):
            first = _place(int(item), size, axis)
            last, stride = first + 1, 1
            dropped.append(axis)
        else:
            first, last, stride = 0, size, 1
            gathers.append((axis, item))
            position += 1
        begin.append(first)
        end.append(last)
        step.append(stride)
        axis += 1
    whole = all(first == 0 and stride == 1 and last == dim for first, last, stride, dim in
                zip(begin, end, step, x.type.shape, strict=True))  # fmt: skip
    result: Any = x if whole else b.slice(x, begin=tuple(begin), end=tuple(end), step=tuple(step))
    result = _gather(b, result, gathers)
    if dropped:
        result = b.squeeze(result, axis=tuple(dropped))
    return b.expand_dims(result, axis=tuple(added)) if added else result


def _expanded(items: tuple[Any, ...], rank: int) -> list[Any]:
    """The key with `...` written out."""
    used = sum(item is not None and item is not Ellipsis for item in items)
    if used > rank:
        raise ArgumentError("too many indices", got=used, expected=f"at most {rank}")
    missing = [slice(None)] * (rank - used)
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise ArgumentError("an index can have only one ...")
    if not dots:
        return [*items, *missing]
    return [*items[: dots[0]], *missing, *items[dots[0] + 1 :]]


def _place(item: int, size: Dim, axis: int) -> Dim:
    if isinstance(size, int) and not -size <= item < size:
        raise ArgumentError(
            f"index {item} is out of range", where=f"axis {axis}", expected=f"{-size} <= index < {size}"
        )
    return item if item >= 0 else size + item


def _slice(item: slice, size: Dim) -> tuple[Dim, Dim, int]:
    step = 1 if item.step is None else int(item.step)
    if step == 0:
        raise ArgumentError("the step of a slice cannot be 0")
    if isinstance(size, int):
        first, last, step = slice(item.start, item.stop, step).indices(size)
        if (step > 0 and last < first) or (step < 0 and last > first):
            last = first
        if step < 0 and first < 0:
            return 0, 0, 1  # nothing is left of an empty axis
        return first, last, step

    # A size not known yet: bounds are taken as they are, counted from the end where negative; a run refuses those outside.
    def bound(value: Any, default: Dim) -> Dim:
        return default if value is None else int(value) if int(value) >= 0 else size + int(value)

    if step > 0:
        return bound(item.start, 0), bound(item.stop, size), step
    return bound(item.start, size - 1), bound(item.stop, -1), step


def _gather(b: Any, x: Any, gathers: list[tuple[int, Any]]) -> Any:
    if not gathers:
        return x
    if len(gathers) > 1:
        raise ArgumentError("only one axis can be indexed by an array", advice="use gather on a reshaped tensor")
    axis, item = gathers[0]
    if not isinstance(item, Value):
        array = np.asarray(item)
        if array.dtype == bool:
            if array.ndim != 1:
                raise ArgumentError("a boolean index must have one axis", got=array.shape)
            item = np.flatnonzero(array)
        elif array.dtype.kind not in "iu":
            raise ArgumentError("an index must be integers or booleans", got=array.dtype)
    elif item.dtype.is_bool:
        raise ArgumentError("a boolean tensor as an index would give a size known only at run time", advice="use where")
    return b.gather(x, item, axis=axis)
