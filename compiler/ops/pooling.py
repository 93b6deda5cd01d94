"""Pooling over channels-last arrays, any number of spatial axes; padding is done before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, definitely_differ, maximum
from pierian.compiler.dtype import bool_, int32
from pierian.compiler.errors import DTypeError, ShapeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.ops.movement import Sizes
from pierian.compiler.ops.windows import (
    are_few,
    covering_windows,
    cut_to,
    most_covering,
    points,
    windows_infer,
    windows_reference,
)
from pierian.compiler.shape import TensorType

# --- the largest element ----------------------------------------------------------------------------------------------


@operator(public=False)
def window_max(x: Tensor, window: Sequence[int], strides: Sequence[int]) -> Tensor:
    """The largest element of every window of [batch, *sizes, channels]; a NaN is larger than all numbers.

    The gradient of a window goes to the first of its elements that are largest, as in TensorFlow.
    """


@window_max.normalize
def _max_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    found = {name: tuple(attributes[name]) for name in ("window", "strides")}
    if any(not isinstance(one, int) or one < 1 for value in found.values() for one in value):
        raise ShapeError("windows and strides are integers from 1 on", got=found)
    return found


@window_max.infer
def _max_infer(x: TensorType, window: Any, strides: Any) -> TensorType:
    if x.dtype is bool_:
        raise DTypeError("pooling needs numbers", got=x.dtype)
    windows = windows_infer(x, window, strides, (1,) * len(strides))
    return TensorType(x.dtype, (*windows.shape[: 1 + len(strides)], x.shape[-1]))


def _windows(b: Any, x: Value, window: Sequence[int], strides: Sequence[int]) -> tuple[Value, tuple[int, ...]]:
    """The windows of an array, and which of their axes are the window's."""
    spatial = len(window)
    windows = b.sliding_windows(x, window=window, strides=strides, dilations=(1,) * spatial)
    return windows, tuple(range(1 + spatial, 1 + 2 * spatial))


@window_max.expand
def _max_expand(b: Any, x: Value, window: Any, strides: Any) -> Value:
    windows, axes = _windows(b, x, window, strides)
    result: Value = b.max(windows, axis=axes)
    return result


@window_max.gradient
def _max_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    (x,) = node.inputs
    window, strides = node.attributes["window"], node.attributes["strides"]
    windows, axes = _windows(b, x, window, strides)
    is_largest = b.equal(windows, b.expand_dims(node.output, axis=axes))
    if x.dtype.is_float:
        is_largest = b.logical_or(is_largest, b.not_equal(windows, windows))
    number = b.where(is_largest, _numbers(b, window), b.constant(int(np.prod(window)), int32))
    first = b.min(number, axis=axes)
    # Windows that are not there have nothing to give, so that code for elements need not ask whether one is; very few are all asked.
    ahead: list[Dim] = []
    behind: list[Dim] = []
    for size, count, reach, stride in zip(x.shape[1:-1], dz.shape[1:-1], window, strides, strict=True):
        few = are_few(count, reach, stride)
        ahead.append(0 if few else most_covering(reach, stride) - 1)
        behind.append(0 if few else (size - 1) // stride + 1 - count)
    if any(amount != 0 for amount in (*ahead, *behind)):
        dz, first = (b.pad(one, before=(0, *ahead, 0), after=(0, *behind, 0)) for one in (dz, first))
    return (b.unpool(dz, first, before=ahead, sizes=x.shape[1:-1], window=window, strides=strides),)


def _numbers(b: Any, window: Sequence[int]) -> Value:
    """The elements of a window [*window, 1], counted."""
    result: Value = b.constant(np.arange(np.prod(window), dtype=np.int32).reshape(*window, 1))
    return result


@window_max.reference
def _max_reference(x: Any, window: Any, strides: Any) -> Any:
    seen = windows_reference(x, window, strides, (1,) * len(strides))
    return seen.max(axis=tuple(range(1 + len(window), 1 + 2 * len(window))))


# --- and back to it ---------------------------------------------------------------------------------------------------


@operator(ulp=None, public=False)
def unpool(
    x: Tensor, first: Tensor, before: Sequence[int], sizes: Sizes, window: Sequence[int], strides: Sequence[int]
) -> Tensor:
    """Each element of `x` [batch, *places, channels] at the element of its window that has the number `first` (int32), zero
    elsewhere; what overlapping windows give to one element adds up. The result is [batch, *sizes, channels].

    Window p begins at `(p - before) * stride`; there must be one for each multiple of the stride that reaches into the result, or
    fewer than can cover one element.
    """


@unpool.normalize
def _unpool_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(attributes[name]) for name in ("before", "sizes", "window", "strides")}


@unpool.infer
def _unpool_infer(x: TensorType, first: TensorType, before: Any, sizes: Any, window: Any, strides: Any) -> TensorType:
    alike = x.rank == first.rank and not any(
        definitely_differ(*pair) for pair in zip(x.shape, first.shape, strict=True)
    )
    if first.dtype is not int32 or x.dtype is bool_:
        raise DTypeError("numbers, and their places as int32, are needed", got=f"{x.dtype}, {first.dtype}")
    if not alike or x.rank != len(strides) + 2:
        raise ShapeError("two equal shapes [batch, *places, channels] are needed", got=f"{x}, {first}")
    for count, ahead, size, reach, stride in zip(x.shape[1:-1], before, sizes, window, strides, strict=True):
        if are_few(count, reach, stride):
            enough = ahead == 0
        else:
            last = (size - 1) // stride + ahead
            enough = not (isinstance(count, int) and isinstance(last, int) and last >= count > 0)
            enough = enough and ahead >= most_covering(reach, stride) - 1
        if not enough:
            raise ShapeError(
                "there are not enough windows to cover the result", got=f"{count}, {ahead} of them before it"
            )
    return TensorType(x.dtype, (x.shape[0], *sizes, x.shape[-1]))


@unpool.constraints
def _unpool_constraints(x: TensorType, first: TensorType, **_: Any) -> list[Any]:
    return list(zip(x.shape, first.shape, strict=True))


@unpool.gradient
def _unpool_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, first = node.inputs
    a = node.attributes
    window, strides = a["window"], a["strides"]
    ahead = [count * stride for count, stride in zip(a["before"], strides, strict=True)]
    behind = [
        (count - 1) * stride + reach - begin - size
        for count, stride, reach, begin, size in zip(x.shape[1:-1], strides, window, ahead, a["sizes"], strict=True)
    ]
    behind = [maximum(amount, 0) for amount in behind]
    wide = b.pad(dz, before=(0, *ahead, 0), after=(0, *behind, 0))
    windows, axes = _windows(b, wide, window, strides)
    windows = cut_to(b, windows, (*x.shape[:-1], *window, x.shape[-1]))
    chosen = b.equal(b.expand_dims(first, axis=axes), _numbers(b, window))
    return b.sum(b.where(chosen, windows, b.zeros_like(windows)), axis=axes), None


@unpool.reference
def _unpool_reference(x: Any, first: Any, before: Any, sizes: Any, window: Any, strides: Any) -> Any:
    reach = ((n - 1) * s + w + size for n, s, w, size in zip(x.shape[1:-1], strides, window, sizes, strict=True))
    result = np.zeros((x.shape[0], *reach, x.shape[-1]), x.dtype)
    for number, taps in enumerate(np.ndindex(*window)):
        ends = (t + (n - 1) * s + 1 for t, n, s in zip(taps, x.shape[1:-1], strides, strict=True))
        place = tuple(slice(t, end, s) for t, end, s in zip(taps, ends, strides, strict=True))
        result[(slice(None), *place)] += np.where(first == number, x, 0)
    begins = (count * stride for count, stride in zip(before, strides, strict=True))
    inside = tuple(slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True))
    return np.ascontiguousarray(result[(slice(None), *inside)])


@unpool.kernel
def _unpool_kernel(k: Any, node: Node) -> None:
    """Each element looks at the windows that cover it."""
    s = k.s
    x, first = node.inputs
    a = node.attributes
    k.axes, at = points(k, node.output.shape)
    found = covering_windows(k, at[1:-1], node.output.shape[1:-1], a["window"], a["strides"], x.shape[1:-1])
    source = (at[0], *(place + ahead for place, ahead in zip(found.places, a["before"], strict=True)), at[-1])
    number: Dim = 0
    for tap, size in zip(found.taps, a["window"], strict=True):
        number = number * size + tap
    given = s.eq(k.read(first, source), s.dim(number, int32))
    for axis, size in found.tap_bounds.items():
        tap = s.dim(found.taps[axis])
        given = s.logical_and(given, s.lt(tap, s.dim(size)))
        if are_few(x.shape[1 + axis], size, a["strides"][axis]):
            given = s.logical_and(given, s.compare("ge", tap, 0))
    value = s.select(given, k.read(x, source), 0)
    total = k.reduce("sum", found.axes, value) if found.axes else value
    k.store(k.output(node.output), at, total)


window_max.samples = [
    ("f32[2,7,6,3]", {"window": (3, 2), "strides": (2, 1)}),
    ("f64[2,9,17]", {"window": (2,), "strides": (2,)}),
    ("i32[1,5,5,2]", {"window": (2, 2), "strides": (2, 2)}),
    ("f64[2,8,7,3]", {"window": (7, 7), "strides": (1, 2)}),
]
unpool.samples = [
    ("f32[2,3,4,5] i32[2,3,4,5]", {"before": (1, 1), "sizes": (4, 3), "window": (3, 2), "strides": (2, 1)}),
    ("f64[2,3,3,17] i32[2,3,3,17]", {"before": (0, 0), "sizes": (6, 5), "window": (2, 2), "strides": (2, 2)}),
    ("f64[1,2,19] i32[1,2,19]", {"before": (0,), "sizes": (8,), "window": (3,), "strides": (4,)}),
    ("f32[2,1,1,5] i32[2,1,1,5]", {"before": (0, 0), "sizes": (8, 6), "window": (7, 5), "strides": (1, 1)}),
]
