"""Sliding windows over channels-last arrays, any number of spatial axes: how many there are, and their elements as a view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, floordiv
from pierian.compiler.dtype import bool_
from pierian.compiler.errors import ShapeError
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.nodes import Axis
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.ops.movement import Sizes
from pierian.compiler.shape import TensorType


def window_count(size: Dim, window: Dim, stride: int, dilation: int) -> Dim:
    """How many windows fit along an axis."""
    room = size - (window - 1) * dilation - 1
    if isinstance(room, int) and room < 0:
        raise ShapeError("the window is larger than the axis", got=size, expected=f"at least {size - room}")
    return room // stride + 1


def window_counts(
    sizes: Sequence[Dim], window: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> list[Dim]:
    return [window_count(*axis) for axis in zip(sizes, window, strides, dilations, strict=True)]


def normalize_steps(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    found = {name: tuple(attributes[name]) for name in ("strides", "dilations")}
    if len(found["strides"]) != len(found["dilations"]):
        raise ShapeError("strides and dilations are needed for each spatial axis", got=found)
    if any(not isinstance(one, int) or one < 1 for value in found.values() for one in value):
        raise ShapeError("strides and dilations are integers from 1 on", got=found)
    return found


def cut_to(b: Any, x: Value, shape: Sequence[Dim]) -> Value:
    if x.shape == tuple(shape):
        return x
    return b.slice(x, begin=(0,) * len(shape), end=tuple(shape), step=(1,) * len(shape))


def windows_reference(x: Any, window: Any, strides: Any, dilations: Any) -> Any:
    """[batch, *places, *window, rest...] of [batch, *sizes, rest...]."""
    spatial = len(strides)
    reach = tuple((w - 1) * d + 1 for w, d in zip(window, dilations, strict=True))
    axes = tuple(range(1, spatial + 1))
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    seen = seen[np.index_exp[:] + tuple(slice(None, None, s) for s in strides)]
    seen = seen[np.index_exp[...] + tuple(slice(None, None, d) for d in dilations)]
    rest = range(spatial + 1, x.ndim)
    return np.transpose(seen, (0, *axes, *range(x.ndim, x.ndim + spatial), *rest))


@operator(public=False)
def sliding_windows(x: Tensor, window: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """Every window of [batch, *sizes, channels] as [batch, *places, *window, channels]; no copy."""


@sliding_windows.normalize
def _windows_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {**normalize_steps(types, attributes), "window": tuple(attributes["window"])}


@sliding_windows.infer
def windows_infer(x: TensorType, window: Any, strides: Any, dilations: Any) -> TensorType:
    spatial = len(strides)
    if x.rank != spatial + 2:
        raise ShapeError(f"windows over {spatial} axes need an array [batch, *sizes, channels]", got=x)
    sizes = window_counts(x.shape[1 : spatial + 1], window, strides, dilations)
    return TensorType(x.dtype, (x.shape[0], *sizes, *window, x.shape[-1]))


@sliding_windows.index_map
def _windows_map(index: Any, x: TensorType, window: Any, strides: Any, dilations: Any) -> Any:
    spatial = len(strides)
    batch, *rest = index
    at, taps = rest[:spatial], rest[spatial : 2 * spatial]
    places = [
        rules.index_sum(rules.index_multiply(o, s), rules.index_multiply(t, d))
        for o, t, s, d in zip(at, taps, strides, dilations, strict=True)
    ]
    return (batch, *places, rest[-1])


@sliding_windows.gradient
def _windows_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    a = node.attributes
    sizes = node.inputs[0].shape[1:-1]
    return (b.fold_windows(dz, sizes=sizes, strides=a["strides"], dilations=a["dilations"]),)


@sliding_windows.reference
def _sliding_reference(x: Any, window: Any, strides: Any, dilations: Any) -> Any:
    return np.ascontiguousarray(windows_reference(x, window, strides, dilations))


@operator(ulp=None, public=False)
def fold_windows(x: Tensor, sizes: Sizes, strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """The sum of windows [batch, *places, *window, channels] where they overlap, as [batch, *sizes, channels]."""


@fold_windows.normalize
def _fold_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {**normalize_steps(types, attributes), "sizes": tuple(attributes["sizes"])}


@fold_windows.infer
def _fold_infer(x: TensorType, sizes: Any, strides: Any, dilations: Any) -> TensorType:
    if x.rank != 2 * len(strides) + 2:
        raise ShapeError("windows are [batch, *places, *window, channels]", got=x)
    return TensorType(x.dtype, (x.shape[0], *sizes, x.shape[-1]))


@fold_windows.gradient
def _fold_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    a = node.attributes
    spatial = len(a["strides"])
    x = node.inputs[0]
    window = x.shape[1 + spatial : 1 + 2 * spatial]
    seen = b.sliding_windows(dz, window=window, strides=a["strides"], dilations=a["dilations"])
    return (cut_to(b, seen, x.shape),)


@fold_windows.reference
def _fold_reference(x: Any, sizes: Any, strides: Any, dilations: Any) -> Any:
    spatial = len(strides)
    result = np.zeros((x.shape[0], *sizes, x.shape[-1]), x.dtype)
    for taps in np.ndindex(*x.shape[1 + spatial : 1 + 2 * spatial]):
        place = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, s, n in zip(taps, dilations, strides, x.shape[1 : 1 + spatial], strict=True)
        )
        result[(slice(None), *place)] += x[(slice(None),) * (1 + spatial) + taps]
    return result


@fold_windows.kernel
def _fold_kernel(k: Any, node: Node) -> None:
    """Each element adds up the windows that cover it."""
    (x,) = node.inputs
    strides, dilations = node.attributes["strides"], node.attributes["dilations"]
    spatial = len(strides)
    counts, window = x.shape[1 : 1 + spatial], x.shape[1 + spatial : 1 + 2 * spatial]
    outer, at = points(k, node.output.shape)
    known = [size for size in window if isinstance(size, int)]
    if all(dilation == 1 for dilation in dilations) and len(known) == spatial:
        found = covering_windows(k, at[1:-1], node.output.shape[1:-1], known, strides, counts)
        bounds = {1 + axis: extent for axis, extent in found.place_bounds.items()}
        bounds |= {1 + spatial + axis: extent for axis, extent in found.tap_bounds.items()}
        axes, value = found.axes, k.read_inside(x, (at[0], *found.places, *found.taps, at[-1]), bounds, 0)
    else:
        axes, value = _spread(k, x, at, strides, dilations)
    k.axes = outer
    total = k.reduce("sum", axes, value) if axes else value
    k.store(k.output(node.output), at, total)


def points(k: Any, shape: Sequence[Dim]) -> tuple[list[Axis], tuple[Dim, ...]]:
    """An axis for each that has several points, and the index that they make."""
    found = [k.new_axis(dim) if dim != 1 else None for dim in shape]
    return [pair[0] for pair in found if pair], tuple(pair[1] if pair else 0 for pair in found)


def _spread(
    k: Any, x: Value, at: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[tuple[Axis, ...], Scalar]:
    """What a window's tap gives to an element, for all taps, and those."""
    s = k.s
    spatial = len(strides)
    taps = [k.new_axis(dim) for dim in x.shape[1 + spatial : 1 + 2 * spatial]]
    inside: Scalar = s.const(True, bool_)
    places = []
    for axis in range(spatial):
        offset = rules.index_value(s, at[1 + axis] - taps[axis][1] * dilations[axis])
        place = s.div(offset, strides[axis])
        last = s.sub(s.dim(x.shape[1 + axis]), 1)
        exact = s.eq(s.mul(place, strides[axis]), offset)
        inside = s.logical_and(inside, s.logical_and(exact, s.compare("ge", place, 0)))
        inside = s.logical_and(inside, s.compare("le", place, last))
        places.append(s.max(s.min(place, last), 0))
    source = (at[0], *places, *(one for _, one in taps), at[-1])
    return tuple(axis for axis, _ in taps), s.select(inside, k.read(x, source), 0)


@frozen
class Covering:
    """The windows that cover an element, one after the other.

    Attributes:
        axes: how many there are, along the axes where there may be several.
        places, taps: which window, and which of its elements, along each spatial axis.
        place_bounds, tap_bounds: by spatial axis, how many windows and elements there are where an index may be outside of that, or
            below zero.
    """

    axes: tuple[Axis, ...]
    places: list[Dim]
    taps: list[Dim]
    place_bounds: dict[int, Dim]
    tap_bounds: dict[int, int]


def covering_windows(
    k: Any,
    at: Sequence[Dim],
    sizes: Sequence[Dim],
    window: Sequence[int],
    strides: Sequence[int],
    counts: Sequence[Dim],
) -> Covering:
    """The windows, `counts` of them along each axis, that cover the element `at` of an array of `sizes`."""
    found = Covering((), [], [], {}, {})
    axes = []
    for axis, (one, size, stride, count) in enumerate(zip(at, window, strides, counts, strict=True)):
        most = most_covering(size, stride)
        if are_few(count, size, stride):
            # So few that each is asked whether it covers the element, as where one window is the whole array.
            number: Dim = 0
            if count != 1:
                turn, number = k.new_axis(count)
                axes.append(turn)
            found.places.append(number)
            found.taps.append(one - number * stride)
            found.tap_bounds[axis] = size
            continue
        back: Dim = 0
        if most > 1:
            turn, back = k.new_axis(most)
            axes.append(turn)
        place = floordiv(one, stride) - back
        found.places.append(place)
        found.taps.append(one - place * stride)
        if most > 1 or not _reach(count, stride, sizes[axis]):
            found.place_bounds[axis] = count
        if most * stride > size:
            found.tap_bounds[axis] = size
    return replace(found, axes=tuple(axes))


def most_covering(window: int, stride: int) -> int:
    """How many windows along an axis cover an element, at most."""
    return -(-window // stride)


def are_few(count: Dim, window: int, stride: int) -> bool:
    """Whether there are known to be fewer windows along an axis than may cover an element."""
    return isinstance(count, int) and 0 < count < most_covering(window, stride)


def _reach(count: Dim, stride: int, size: Dim) -> bool:
    """Whether so many windows, one beside the other, are known to cover an axis."""
    return isinstance(count, int) and isinstance(size, int) and count * stride >= size


sliding_windows.samples = [
    ("f32[2,7,6,3]", {"window": (3, 2), "strides": (2, 1), "dilations": (1, 2)}),
    ("f64[2,9,5]", {"window": (3,), "strides": (3,), "dilations": (2,)}),
]
fold_windows.samples = [
    ("f32[2,3,4,3,2,5]", {"sizes": (7, 6), "strides": (2, 1), "dilations": (1, 2)}),
    ("f64[2,3,3,17]", {"sizes": (11,), "strides": (3,), "dilations": (2,)}),
    ("f32[2,1,2,7,5,3]", {"sizes": (8, 6), "strides": (1, 1), "dilations": (1, 1)}),
]
