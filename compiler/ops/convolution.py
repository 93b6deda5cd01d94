"""Convolutions over channels-last arrays, any number of spatial axes; padding is done before.

Shapes: `x` [batch, *sizes, channels], `filters` [*window, channels, outputs]. Grouped: `x` [batch, *sizes, groups, channels],
`filters` [*window, channels, groups, outputs]. The names under `pierian.nn` take TensorFlow's arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, definitely_differ
from pierian.compiler.dtype import bool_
from pierian.compiler.errors import DTypeError, ShapeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.ops.joining import residues, share
from pierian.compiler.ops.movement import Sizes
from pierian.compiler.ops.windows import cut_to, normalize_steps, window_counts, windows_reference
from pierian.compiler.shape import TensorType, format_shape


def _is_grouped(x: TensorType, strides: Sequence[int]) -> bool:
    return x.rank == len(strides) + 3


def _check(x: TensorType, other: TensorType, strides: Sequence[int], what: str) -> None:
    spatial = len(strides)
    if x.dtype is not other.dtype or x.dtype is bool_:
        raise DTypeError("convolutions need two equal numeric element types", got=f"{x.dtype}, {other.dtype}")
    if x.rank not in (spatial + 2, spatial + 3) or other.rank != x.rank:
        raise ShapeError(
            f"a convolution over {spatial} axes needs an array [batch, *sizes, channels] and {what}",
            got=f"{x}, {other}",
        )


# --- convolution -------------------------------------------------------------------------------------------------


@operator(ulp=None, cost=64, public=False, normalize=normalize_steps)
def conv_general(x: Tensor, filters: Tensor, strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    """Correlation of `x` with each filter at every window: sums of products over the window and the channels."""


@conv_general.infer
def _conv_infer(x: TensorType, filters: TensorType, strides: Any, dilations: Any) -> TensorType:
    _check(x, filters, strides, "filters [*window, channels, outputs]")
    spatial = len(strides)
    grouped = _is_grouped(x, strides)
    channels = [(x.shape[-1], filters.shape[spatial])]
    if grouped:
        channels.append((x.shape[-2], filters.shape[spatial + 1]))
    if any(definitely_differ(*pair) for pair in channels):
        raise ShapeError(
            "channels of array and filters differ", got=f"{format_shape(x.shape)} and {format_shape(filters.shape)}",
            expected=f"{x.shape[-1]} channels in the filters",
        )  # fmt: skip
    sizes = window_counts(x.shape[1 : spatial + 1], filters.shape[:spatial], strides, dilations)
    return TensorType(x.dtype, (x.shape[0], *sizes, *([x.shape[-2]] if grouped else []), filters.shape[-1]))


@conv_general.constraints
def _conv_constraints(x: TensorType, filters: TensorType, strides: Any, dilations: Any) -> list[Any]:
    spatial = len(strides)
    pairs = [(x.shape[-1], filters.shape[spatial])]
    return [*pairs, (x.shape[-2], filters.shape[spatial + 1])] if _is_grouped(x, strides) else pairs


@conv_general.contract
def _conv_contract(x: TensorType, filters: TensorType, strides: Any, dilations: Any) -> Any:
    spatial = len(strides)

    def maps(index: Any, inner: Any) -> Any:
        batch, *rest = index
        *taps, channel = inner
        places = _window_places(rest[:spatial], taps, strides, dilations)
        if _is_grouped(x, strides):
            group, output = rest[spatial:]
            return (batch, *places, group, channel), (*taps, channel, group, output)
        return (batch, *places, channel), (*taps, channel, rest[spatial])

    return (*filters.shape[:spatial], filters.shape[spatial]), maps


def _window_places(at: Any, taps: Any, strides: Any, dilations: Any) -> list[Any]:
    return [o * s + t * d for o, t, s, d in zip(at, taps, strides, dilations, strict=True)]


@conv_general.gradient
def _conv_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, filters = node.inputs
    strides, dilations = node.attributes["strides"], node.attributes["dilations"]
    window = filters.shape[: len(strides)]
    dx = input_gradient(b, dz, filters, x.shape, strides, dilations)
    return dx, b.conv_filter_gradient(x, dz, window=window, strides=strides, dilations=dilations)


def input_gradient(
    b: Any, dz: Value, filters: Value, shape: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> Value:
    """The gradient of `conv_general` with respect to an array of `shape`; also the transposed convolution of `dz`.

    It is a convolution of `dz` with the filters turned around. With strides, every residue of a position by the stride meets
    filter taps of its own: one convolution for each, and their results interleaved.
    """
    spatial = len(strides)
    turned = b.permute_dims(filters, axes=_turned_axes(filters.type.rank, spatial))
    if all(stride == 1 for stride in strides) or any(dilation != 1 for dilation in dilations):
        return _spread_gradient(b, dz, turned, shape, strides, dilations)
    sizes = shape[1 : 1 + spatial]
    parts = [_residue_gradient(b, dz, turned, sizes, strides, residue) for residue in residues(strides)]
    rest = parts[0].shape[1 + spatial :]
    return b.interleave(parts, shape=(dz.shape[0], *sizes, *rest), counts=(1, *strides, *(1 for _ in rest)))


def _turned_axes(rank: int, spatial: int) -> tuple[int, ...]:
    """Filters with channels and outputs exchanged."""
    middle = tuple(range(spatial + 1, rank - 1))
    return (*range(spatial), rank - 1, *middle, spatial)


def _reversed(b: Any, filters: Value, spatial: int) -> Value:
    return b.flip(filters, axis=tuple(range(spatial)))


def _spread_gradient(
    b: Any, dz: Value, turned: Value, shape: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> Value:
    """By one convolution over `dz`, its elements apart by the strides with zeros between."""
    spatial = len(strides)
    dz = _apart(b, dz, range(1, 1 + spatial), strides)
    reach = [(turned.shape[axis] - 1) * dilations[axis] for axis in range(spatial)]
    behind = [shape[1 + axis] - dz.shape[1 + axis] for axis in range(spatial)]  # what windows reach or leave over
    padded = _padded(b, dz, reach, behind)
    return b.conv_general(padded, _reversed(b, turned, spatial), strides=(1,) * spatial, dilations=tuple(dilations))


def _residue_gradient(
    b: Any, dz: Value, turned: Value, sizes: Sequence[Dim], strides: Sequence[int], residue: Sequence[int]
) -> Value:
    """The gradient at positions `stride * q + residue`, for all q, of an array of some sizes."""
    spatial = len(strides)
    sizes = [share(*axis) for axis in zip(sizes, strides, residue, strict=True)]
    begin = (*residue, *(0 for _ in turned.shape[spatial:]))
    steps = (*strides, *(1 for _ in turned.shape[spatial:]))
    window = [-(-(turned.shape[axis] - residue[axis]) // strides[axis]) for axis in range(spatial)]
    if any(isinstance(count, int) and count <= 0 for count in window):
        return b.zeros((dz.shape[0], *sizes, *dz.shape[1 + spatial : -1], turned.shape[-1]), dtype=dz.dtype)
    taps = b.slice(turned, begin=begin, end=turned.shape, step=steps)
    reach = [count - 1 for count in window]
    behind = [sizes[axis] - dz.shape[1 + axis] for axis in range(spatial)]
    padded = _padded(b, dz, reach, behind)
    return b.conv_general(padded, _reversed(b, taps, spatial), strides=(1,) * spatial, dilations=(1,) * spatial)


def _padded(b: Any, x: Value, before: Sequence[Dim], after: Sequence[Dim]) -> Value:
    """Zeros around the spatial axes; less than none cuts elements off."""
    spatial = len(before)
    rest = (0,) * (x.type.rank - 1 - spatial)
    before, after = zip(*map(_within, before, x.shape[1:], after), strict=True)
    cuts = [[-min(amount, 0) if isinstance(amount, int) else 0 for amount in side] for side in (before, after)]
    ahead, behind = (
        [amount + cut for amount, cut in zip(side, given, strict=True)]
        for side, given in zip((before, after), cuts, strict=True)
    )

    def cut(x: Value) -> Value:
        begin, end = ((0, *cut, *rest) for cut in cuts)
        if not any((*begin, *end)):
            return x
        left = tuple(size - amount for size, amount in zip(x.shape, end, strict=True))
        result: Value = b.slice(x, begin=begin, end=left, step=(1,) * x.type.rank)
        return result

    def pad(x: Value) -> Value:
        if all(amount == 0 for amount in (*ahead, *behind)):
            return x
        result: Value = b.pad(x, before=(0, *ahead, *rest), after=(0, *behind, *rest))
        return result

    # Where it is not known whether there is as much to cut off, that may be padding.
    known = all(isinstance(size, int) for size in (*before, *after, *x.shape[1 : 1 + spatial]))
    return pad(cut(x)) if known else cut(pad(x))


def _within(before: Dim, size: Dim, after: Dim) -> tuple[Dim, Dim]:
    """Amounts around an axis that cut off no more than it has; what is more, they cut off the other side's padding."""
    if not (isinstance(before, int) and isinstance(size, int) and isinstance(after, int)):
        return before, after
    both = before + size + after
    return (-size, both) if before < -size else (both, -size) if after < -size else (before, after)


@conv_general.reference
def _conv_reference(x: Any, filters: Any, strides: Any, dilations: Any) -> Any:
    wide = np.float64 if x.dtype.kind == "f" else x.dtype
    spatial = len(strides)
    windows = windows_reference(x.astype(wide), filters.shape[:spatial], strides, dilations)
    taps, places = "uvw"[:spatial], "xyz"[:spatial]
    group = "g" if x.ndim == spatial + 3 else ""
    rule = f"b{places}{taps}{group}c,{taps}c{group}o->b{places}{group}o"
    return np.einsum(rule, windows, filters.astype(wide)).astype(x.dtype)


@operator(ulp=None, cost=64, public=False)
def conv_filter_gradient(
    x: Tensor, dz: Tensor, window: Sizes, strides: Sequence[int], dilations: Sequence[int]
) -> Tensor:
    """The gradient of `conv_general` with respect to filters over `window`: sums over the batch and all places."""


@conv_filter_gradient.normalize
def _filter_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {**normalize_steps(types, attributes), "window": tuple(attributes["window"])}


@conv_filter_gradient.infer
def _filter_infer(x: TensorType, dz: TensorType, window: Any, strides: Any, dilations: Any) -> TensorType:
    _check(x, dz, strides, "a gradient [batch, *places, outputs]")
    groups = [x.shape[-2]] if _is_grouped(x, strides) else []
    return TensorType(x.dtype, (*window, x.shape[-1], *groups, dz.shape[-1]))


@conv_filter_gradient.contract
def _filter_contract(x: TensorType, dz: TensorType, window: Any, strides: Any, dilations: Any) -> Any:
    spatial = len(strides)

    def maps(index: Any, inner: Any) -> Any:
        taps, (channel, *group, output) = index[:spatial], index[spatial:]
        batch, *at = inner
        places = _window_places(at, taps, strides, dilations)
        return (batch, *places, *group, channel), (batch, *at, *group, output)

    return dz.shape[: spatial + 1], maps


@conv_filter_gradient.gradient
def _filter_gradient(b: Any, node: Node, dw: Value) -> tuple[Value | None, ...]:
    x, dz = node.inputs
    strides, dilations = node.attributes["strides"], node.attributes["dilations"]
    dx = input_gradient(b, dz, dw, x.shape, strides, dilations)
    again = b.conv_general(x, dw, strides=strides, dilations=dilations)
    return dx, cut_to(b, again, dz.shape)


@conv_filter_gradient.reference
def _filter_reference(x: Any, dz: Any, window: Any, strides: Any, dilations: Any) -> Any:
    wide = np.float64 if x.dtype.kind == "f" else x.dtype
    spatial = len(strides)
    windows = windows_reference(x.astype(wide), window, strides, dilations)
    windows = windows[(slice(None), *(slice(n) for n in dz.shape[1 : spatial + 1]))]
    taps, places = "uvw"[:spatial], "xyz"[:spatial]
    group = "g" if x.ndim == spatial + 3 else ""
    return np.einsum(f"b{places}{taps}{group}c,b{places}{group}o->{taps}c{group}o", windows, dz.astype(wide)).astype(
        x.dtype
    )


# --- depthwise ---------------------------------------------------------------------------------------------------


@operator(ulp=None, cost=64, public=False)
def conv_depthwise(
    x: Tensor,
    filters: Tensor,
    sizes: Sizes,
    before: Sequence[Dim],
    strides: Sequence[int],
    dilations: Sequence[int],
    channels_first: bool,
) -> Tensor:
    """Correlation of every channel of `x` with its own filter of `filters` [*window, channels], in either layout.

    The result has the spatial `sizes`; window o begins at `o * stride - before`, and what lies outside of `x` counts as zero.
    """


def _spatial(rank: int, channels_first: bool) -> slice:
    """Which axes of an array in that layout are spatial."""
    return slice(2, rank) if channels_first else slice(1, rank - 1)


@conv_depthwise.normalize
def _depthwise_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    found = {**normalize_steps(types, attributes), **{name: tuple(attributes[name]) for name in ("sizes", "before")}}
    if any(len(value) != len(found["strides"]) for value in found.values()):
        raise ShapeError("sizes, before, strides and dilations are needed for each spatial axis", got=found)
    return {**found, "channels_first": bool(attributes["channels_first"])}


@conv_depthwise.infer
def _depthwise_infer(
    x: TensorType, filters: TensorType, sizes: Any, before: Any, strides: Any, dilations: Any, channels_first: bool
) -> TensorType:
    spatial = len(strides)
    if x.dtype is not filters.dtype or x.dtype is bool_:
        raise DTypeError("convolutions need two equal numeric element types", got=f"{x.dtype}, {filters.dtype}")
    if x.rank != spatial + 2 or filters.rank != spatial + 1:
        raise ShapeError(
            f"over {spatial} axes [batch, *sizes, channels] and [*window, channels] are needed", got=f"{x}, {filters}"
        )
    channels = x.shape[1 if channels_first else -1]
    if definitely_differ(channels, filters.shape[-1]):
        raise ShapeError("channels of array and filters differ", got=f"{x}, {filters}")
    return TensorType(x.dtype, (x.shape[0], channels, *sizes) if channels_first else (x.shape[0], *sizes, channels))


@conv_depthwise.constraints
def _depthwise_constraints(x: TensorType, filters: TensorType, channels_first: bool, **_: Any) -> list[Any]:
    return [(x.shape[1 if channels_first else -1], filters.shape[-1])]


@conv_depthwise.contract
def _depthwise_contract(
    x: TensorType, filters: TensorType, sizes: Any, before: Any, strides: Any, dilations: Any, channels_first: bool
) -> Any:
    axes = range(x.rank)[_spatial(x.rank, channels_first)]

    def maps(index: Any, taps: Any) -> Any:
        at = list(index)
        bounds = {}
        for axis, tap, first, stride, dilation in zip(axes, taps, before, strides, dilations, strict=True):
            at[axis] = index[axis] * stride + tap * dilation - first
            bounds[axis] = x.shape[axis]
        return tuple(at), (*taps, index[1 if channels_first else -1]), bounds

    return filters.shape[:-1], maps


@conv_depthwise.gradient
def _depthwise_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, filters = node.inputs
    a = node.attributes
    first, strides, dilations = a["channels_first"], a["strides"], a["dilations"]
    spatial = len(strides)
    axes = range(x.type.rank)[_spatial(x.type.rank, first)]
    sizes = tuple(x.shape[axis] for axis in axes)
    spread = _apart(b, dz, axes, strides)
    turned = b.flip(filters, axis=tuple(range(spatial)))
    reach = [(filters.shape[i] - 1) * dilations[i] for i in range(spatial)]
    back = tuple(far - amount for far, amount in zip(reach, a["before"], strict=True))
    dx = b.conv_depthwise(
        spread, turned, sizes=sizes, before=back, strides=(1,) * spatial, dilations=dilations, channels_first=first
    )
    # The filters' gradient sums over places: it reads an array with margins.
    after = [
        (places - 1) * stride + far + 1 - amount - size
        for places, stride, far, amount, size in zip(a["sizes"], strides, reach, a["before"], sizes, strict=True)
    ]
    wide, dz = (b.permute_dims(value, axes=to_last(x.type.rank)) if first else value for value in (x, dz))
    wide = _padded(b, wide, a["before"], after)
    wide, dz = (b.reshape(value, shape=(*value.shape, 1)) for value in (wide, dz))
    window = filters.shape[:spatial]
    dw = b.conv_filter_gradient(wide, dz, window=window, strides=strides, dilations=dilations)
    return dx, b.reshape(dw, shape=filters.shape)


def to_last(rank: int) -> tuple[int, ...]:
    """The axes of `permute_dims` from channels first to channels last."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """The way back."""
    return (0, rank - 1, *range(1, rank - 1))


def _apart(b: Any, dz: Value, axes: Sequence[int], strides: Sequence[int]) -> Value:
    """`dz` with its elements apart by the strides, zeros between."""
    if all(stride == 1 for stride in strides):
        return dz
    shape, steps = list(dz.shape), [1] * dz.type.rank
    for axis, stride in zip(axes, strides, strict=True):
        shape[axis], steps[axis] = (dz.shape[axis] - 1) * stride + 1, stride
    return b.unslice(dz, shape=tuple(shape), begin=(0,) * len(shape), step=tuple(steps))


@conv_depthwise.reference
def _depthwise_reference(
    x: Any, filters: Any, sizes: Any, before: Any, strides: Any, dilations: Any, channels_first: bool
) -> Any:
    spatial = len(strides)
    moved = np.moveaxis(x, 1, -1) if channels_first else x
    total = np.zeros(
        (x.shape[0], *sizes, x.shape[1 if channels_first else -1]), np.float64 if x.dtype.kind == "f" else x.dtype
    )
    for tap in np.ndindex(*filters.shape[:-1]):
        for place in np.ndindex(*sizes):
            at = tuple(o * s + t * d - p for o, s, t, d, p in zip(place, strides, tap, dilations, before, strict=True))
            if all(0 <= one < size for one, size in zip(at, moved.shape[1 : 1 + spatial], strict=True)):
                total[(slice(None), *place)] += moved[(slice(None), *at)].astype(total.dtype) * filters[tap]
    total = total.astype(x.dtype)
    return np.ascontiguousarray(np.moveaxis(total, -1, 1)) if channels_first else total


conv_general.samples = [
    ("f32[2,7,6,3] f32[3,2,3,5]", {"strides": (2, 1), "dilations": (1, 2)}),
    ("f64[1,9,8,4] f64[3,3,4,2]", {"strides": (2, 3), "dilations": (1, 1)}),
    ("f32[2,5,5,35] f32[1,1,35,33]", {"strides": (1, 1), "dilations": (1, 1)}),
    ("f32[2,8,5,2,3] f32[3,3,3,2,4]", {"strides": (1, 2), "dilations": (2, 1)}),
    ("f32[2,6,6,7,1] f32[3,3,1,7,1]", {"strides": (1, 1), "dilations": (1, 1)}),
    ("f32[2,11,3] f32[4,3,2]", {"strides": (3,), "dilations": (1,)}),
    ("f32[1,4,5,4,2] f32[2,2,3,2,3]", {"strides": (1, 2, 1), "dilations": (1, 1, 1)}),
    ("i32[1,5,5,2] i32[2,2,2,3]", {"strides": (1, 1), "dilations": (1, 1)}),
]
conv_filter_gradient.samples = [
    ("f32[2,7,6,3] f32[2,3,4,5]", {"window": (3, 2), "strides": (2, 1), "dilations": (1, 2)}),
    ("f64[2,6,6,2,3] f64[2,2,2,2,4]", {"window": (3, 3), "strides": (2, 2), "dilations": (1, 1)}),
]
conv_depthwise.samples = [
    ("f32[2,7,6,3] f32[3,2,3]",
     {"sizes": (4, 5), "before": (1, 0), "strides": (2, 1), "dilations": (1, 2), "channels_first": False}),
    ("f64[2,3,7,6] f64[3,3,3]",
     {"sizes": (7, 3), "before": (1, 1), "strides": (1, 2), "dilations": (1, 1), "channels_first": True}),
    ("i32[1,2,5,19] i32[2,3,2]",
     {"sizes": (5, 19), "before": (0, 2), "strides": (1, 1), "dilations": (1, 2), "channels_first": True}),
    ("f32[3,9,40] f32[4,40]", {"sizes": (8,), "before": (-1,), "strides": (1,), "dilations": (1,), "channels_first": False}),
]  # fmt: skip
