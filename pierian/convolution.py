"""Convolution and pooling with TensorFlow's arguments: strides, padding, dilations, data format."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from pierian.compiler.dim import Dim, maximum, product
from pierian.compiler.errors import ArgumentError, ShapeError
from pierian.compiler.graph.builder import current
from pierian.compiler.ops.convolution import input_gradient, to_first, to_last
from pierian.compiler.ops.windows import window_count

Padding = str | Sequence[Sequence[int]]

# Channels up to which an image that has them first is read as it lies: so few make rows too short to be worth turning around.
FEW_CHANNELS = 8


def conv2d(
    input: Any,
    filters: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    data_format: str = "NHWC",
    dilations: int | Sequence[int] = 1,
    name: str | None = None,
) -> Any:
    """Two-dimensional convolution (a correlation, as everywhere in networks).

    Args:
        input: [batch, height, width, channels], or [batch, channels, height, width] with `data_format="NCHW"`.
        filters: [height, width, channels / groups, outputs] in either format; groups is what makes the channels fit.
        strides: one for both axes, one for each, or four in the order of the data format.
        padding: `VALID` for none, `SAME` for as many outputs as inputs over stride, or pairs (before, after) for height and
            width (or for all four axes).
        data_format: NHWC or NCHW. Convolutions work with channels last; what stands between two of them in NCHW is computed so too.
        dilations: distance of window taps, like `strides`.

    Raises:
        ShapeError: shapes that do not fit; the message has both.
    """
    return convolution(input, filters, strides, padding, data_format, dilations, name)


def conv1d(
    input: Any,
    filters: Any,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    data_format: str = "NWC",
    dilations: int | Sequence[int] = 1,
    name: str | None = None,
) -> Any:
    """Convolution of [batch, width, channels] (or NCW) with filters [width, channels / groups, outputs]; see `conv2d`."""
    return convolution(input, filters, stride, padding, data_format, dilations, name)


def convolution(
    input: Any,
    filters: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    data_format: str | None = None,
    dilations: int | Sequence[int] = 1,
    name: str | None = None,
) -> Any:
    """Convolution over all axes between batch and channels, however many; see `conv2d`."""
    b = current()
    x, w = b.as_value(input), b.as_value(filters)
    spatial = _spatial_axes(x, data_format)
    if w.type.rank != spatial + 2:
        raise ShapeError("filters do not fit the input", got=f"{x.type} and {w.type}", expected=f"rank {spatial + 2}")
    first = _is_channels_first(data_format)
    steps, spread = _each(strides, spatial, data_format), _each(dilations, spatial, data_format)
    if first and _is_matrix_product(x, w, steps, padding):
        return _pointwise_channels_first(b, x, w, name)
    if _is_depthwise(x, w, first):
        return _depthwise(b, x, w, steps, spread, padding, first, name)
    sizes = x.shape[2:] if first else x.shape[1:-1]
    pads = _amounts(sizes, w.shape[:spatial], steps, spread, padding, first)
    if first and isinstance(x.shape[1], int) and x.shape[1] <= FEW_CHANNELS:
        x = _channels_last(b, _padded(b, x, (0, 0), pads, (), 0))
    else:
        x = _padded(b, _channels_last(b, x) if first else x, (0,), pads, (0,), 0)
    groups = _groups(x.shape[-1], w.shape[spatial], w.shape[-1])
    if groups == 1:
        result = b.conv_general(x, w, strides=steps, dilations=spread, name=name)
    else:
        parts = b.reshape(x, shape=(*x.shape[:-1], groups, w.shape[spatial]))
        split = b.reshape(w, shape=(*w.shape[:-1], groups, w.shape[-1] // groups))
        result = b.conv_general(parts, split, strides=steps, dilations=spread, name=name)
        result = b.reshape(result, shape=(*result.shape[:-2], w.shape[-1]))
    return _channels_first(b, result) if first else result


def depthwise_conv2d(
    input: Any,
    filter: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    data_format: str = "NHWC",
    dilations: int | Sequence[int] = 1,
    name: str | None = None,
) -> Any:
    """Every channel with filters of its own: filter [height, width, channels, multiplier] gives channels * multiplier outputs."""
    b = current()
    w = b.as_value(filter)
    if w.type.rank != 4:
        raise ShapeError("a depthwise filter is [height, width, channels, multiplier]", got=w.type)
    grouped = b.reshape(w, shape=(*w.shape[:2], 1, w.shape[2] * w.shape[3]))
    return convolution(input, grouped, strides, padding, data_format, dilations, name)


def conv2d_transpose(
    input: Any,
    filters: Any,
    output_shape: Sequence[Dim],
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    data_format: str = "NHWC",
    dilations: int | Sequence[int] = 1,
    name: str | None = None,
) -> Any:
    """The gradient of `conv2d` for its input, as an operator: from [batch, height, width, outputs] back to `output_shape`.

    Args:
        input: what the convolution would give.
        filters: [height, width, channels of the result, channels of `input`].
        output_shape: four sizes in the order of the data format.
        strides, padding, data_format, dilations: those of the convolution whose input has `output_shape`.
    """
    b = current()
    z, w = b.as_value(input), b.as_value(filters)
    first = _is_channels_first(data_format)
    sizes = tuple(output_shape)
    if len(sizes) != 4:
        raise ShapeError("output_shape needs four sizes", got=sizes)
    if first:
        z = _channels_last(b, z)
        sizes = (sizes[0], *sizes[2:], sizes[1])
    steps, spread = _each(strides, 2, data_format), _each(dilations, 2, data_format)
    pads = _amounts(sizes[1:3], w.shape[:2], steps, spread, padding, first)
    wide = (
        sizes[0],
        *(before + size + after for size, (before, after) in zip(sizes[1:3], pads, strict=True)),
        sizes[3],
    )
    full = input_gradient(b, z, w, wide, steps, spread)
    begin = (0, pads[0][0], pads[1][0], 0)
    end = tuple(at + size for at, size in zip(begin, sizes, strict=True))
    result = b.slice(full, begin=begin, end=end, step=(1,) * 4, name=name)
    return _channels_first(b, result) if first else result


def max_pool(
    input: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    data_format: str | None = None,
    name: str | None = None,
) -> Any:
    """The largest element of every window, channel by channel; where several are largest the first has the gradient.

    Args:
        input: [batch, *sizes, channels], or channels second with a data format that begins with NC.
        ksize: the window: one size for all axes, one for each, or one for each axis of `input` in its order.
        strides: like `ksize`; default the window's own sizes.
        padding: as for `conv2d`; padded places never win.
    """
    b = current()
    x = b.as_value(input)
    lowest = float("-inf") if x.dtype.is_float else -(1 << (x.dtype.bits - 1))
    pool = _Pool(x, ksize, strides, padding, data_format)
    flat = pool.padded(b, pool.flat(b, x), lowest)
    result = b.window_max(flat, window=pool.window, strides=pool.steps)
    return pool.whole(b, result, x, name)


def avg_pool(
    input: Any,
    ksize: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    data_format: str | None = None,
    name: str | None = None,
) -> Any:
    """The mean of every window, channel by channel; padded places do not count. Arguments as for `max_pool`."""
    b = current()
    x = b.as_value(input)
    pool = _Pool(x, ksize, strides, padding, data_format)
    flat = pool.flat(b, x)
    windows = pool.windows(b, flat)
    if padding == "VALID":
        result = b.mean(windows, axis=pool.axes)
    else:
        counted = pool.windows(b, b.ones((1, *flat.shape[1:-1], 1), dtype=x.dtype))
        result = b.divide(b.sum(windows, axis=pool.axes), b.sum(counted, axis=pool.axes))
    return pool.whole(b, result, x, name)


def _is_matrix_product(x: Any, w: Any, strides: Sequence[int], padding: Padding) -> bool:
    """Windows of one element, at every place, over all channels."""
    alone = all(size == 1 for size in (*w.shape[:-2], *strides)) and x.shape[1] == w.shape[-2]
    return alone and (isinstance(padding, str) or all(amount == 0 for pair in padding for amount in pair))


def _is_depthwise(x: Any, w: Any, first: bool) -> bool:
    """A filter for each channel alone."""
    channels = x.shape[1 if first else -1]
    return isinstance(channels, int) and channels > 1 and w.shape[-2:] == (1, channels)


def _depthwise(
    b: Any,
    x: Any,
    w: Any,
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
    first: bool,
    name: str | None,
) -> Any:
    window = w.shape[:-2]
    sizes = x.shape[2:] if first else x.shape[1:-1]
    pads = _amounts(sizes, window, strides, dilations, padding, first)
    counts = [
        window_count(before + size + after, *rest)
        for size, (before, after), *rest in zip(sizes, pads, window, strides, dilations, strict=True)
    ]
    filters = b.reshape(w, shape=(*window, w.shape[-1]))
    before = tuple(pair[0] for pair in pads)
    return b.conv_depthwise(
        x, filters, sizes=counts, before=before, strides=strides, dilations=dilations, channels_first=first, name=name
    )


def _pointwise_channels_first(b: Any, x: Any, w: Any, name: str | None) -> Any:
    """[outputs, channels] times [channels, places]: nothing needs to change its place."""
    matrix = b.reshape(w, shape=w.shape[-2:])
    flat = b.reshape(x, shape=(*x.shape[:2], product(x.shape[2:])))
    result = b.dot_general(matrix, flat, transpose_x=True, transpose_y=False)
    return b.reshape(result, shape=(x.shape[0], w.shape[-1], *x.shape[2:]), name=name)


# --- arguments -------------------------------------------------------------------------------------------------------


class _Pool:
    """What the arguments of pooling ask for.

    Attributes:
        axes: the window's axes in `windows`.
        first: whether channels stand second in input and result.
    """

    def __init__(self, x: Any, ksize: Any, strides: Any, padding: Padding, data_format: str | None) -> None:
        spatial = _spatial_axes(x, data_format)
        self.first = _is_channels_first(data_format)
        self.window = _each(ksize, spatial, data_format)
        self.steps = self.window if strides is None else _each(strides, spatial, data_format)
        self.padding = padding
        self.axes = tuple(range(1 + spatial, 1 + 2 * spatial))

    def flat(self, b: Any, x: Any) -> Any:
        """The input with channels last; where they come first each is an image of its own, so that nothing changes its place."""
        return b.reshape(x, shape=(x.shape[0] * x.shape[1], *x.shape[2:], 1)) if self.first else x

    def whole(self, b: Any, pooled: Any, x: Any, name: str | None) -> Any:
        """What is pooled, in the layout of the input `x`."""
        shape = (*x.shape[:2], *pooled.shape[1:-1]) if self.first else pooled.shape
        return b.reshape(pooled, shape=shape, name=name)

    def padded(self, b: Any, x: Any, fill: float) -> Any:
        """A flat input with `fill` around it."""
        pads = _amounts(x.shape[1:-1], self.window, self.steps, (1,) * len(self.window), self.padding, self.first)
        return _padded(b, x, (0,), pads, (0,), fill)

    def windows(self, b: Any, x: Any) -> Any:
        """[batch, *places, *window, channels] of a flat input, zeros around it."""
        ones = (1,) * len(self.window)
        return b.sliding_windows(self.padded(b, x, 0), window=self.window, strides=self.steps, dilations=ones)


def _spatial_axes(x: Any, data_format: str | None) -> int:
    spatial: int = x.type.rank - 2
    if spatial < 1 or (data_format is not None and data_format.startswith("N") and len(data_format) != x.type.rank):
        raise ShapeError("the input does not fit the data format", got=x.type, expected=data_format or "rank 3 or more")
    return spatial


def _is_channels_first(data_format: str | None) -> bool:
    if data_format in (None, "NHWC", "NWC", "NDHWC"):
        return False
    if data_format in ("NCHW", "NCW", "NCDHW"):
        return True
    raise ArgumentError("unknown data format", got=data_format, expected="NHWC or NCHW, NWC or NCW, NDHWC or NCDHW")


def _channels_last(b: Any, x: Any) -> Any:
    return b.permute_dims(x, axes=to_last(x.type.rank))


def _channels_first(b: Any, x: Any) -> Any:
    return b.permute_dims(x, axes=to_first(x.type.rank))


def _each(given: int | Sequence[int], spatial: int, data_format: str | None) -> tuple[int, ...]:
    """One number for each spatial axis."""
    try:
        numbers = tuple(map(operator.index, given if isinstance(given, Iterable) else (given,)))
    except TypeError:
        raise ArgumentError("an integer, or one for each spatial axis, is needed", got=repr(given)) from None
    if any(one < 1 for one in numbers):
        raise ArgumentError("windows, strides and dilations are integers from 1 on", got=numbers)
    if len(numbers) == 1:
        return numbers * spatial
    if len(numbers) == spatial + 2:
        inner = numbers[2:] if _is_channels_first(data_format) else numbers[1:-1]
        if sorted(numbers) != sorted((*inner, 1, 1)):
            raise ArgumentError(
                "only spatial axes can be walked in steps", got=numbers, expected="1 for batch and channels"
            )
        return inner
    if len(numbers) != spatial:
        raise ArgumentError("one number, or one for each spatial axis, is needed", got=numbers, expected=spatial)
    return numbers


def _amounts(
    sizes: Sequence[Dim],
    window: Sequence[Dim],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
    first: bool,
) -> list[tuple[Dim, Dim]]:
    """Padding before and after each spatial axis."""
    if isinstance(padding, str):
        if padding.upper() == "VALID":
            return [(0, 0)] * len(sizes)
        if padding.upper() != "SAME":
            raise ArgumentError("unknown padding", got=padding, expected="SAME, VALID, or pairs of numbers")
        found: list[tuple[Dim, Dim]] = []
        for size, taps, stride, dilation in zip(sizes, window, strides, dilations, strict=True):
            places = (size + stride - 1) // stride
            total = maximum((places - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
            found.append((total // 2, (total + 1) // 2))
        return found
    try:
        pairs = [(before, after) for before, after in padding]
    except (TypeError, ValueError):
        raise ArgumentError("unknown padding", got=repr(padding), expected="SAME, VALID, or pairs of numbers") from None
    if len(pairs) == len(sizes) + 2:  # for every axis in the order of the data format
        pairs = pairs[2:] if first else pairs[1:-1]
    if len(pairs) != len(sizes) or any(isinstance(one, str) or one < 0 for pair in pairs for one in pair):
        raise ArgumentError("padding needs a pair of numbers >= 0 for each spatial axis", got=padding)
    return list(pairs)


def _padded(
    b: Any, x: Any, ahead: Sequence[int], pads: Sequence[tuple[Dim, Dim]], behind: Sequence[int], fill: float
) -> Any:
    """`fill` around the spatial axes; `ahead` and `behind` have a zero for each axis before and after them."""
    if all(pair == (0, 0) for pair in pads):
        return x
    before, after = zip(*pads, strict=True)
    return b.pad(x, before=(*ahead, *before, *behind), after=(*ahead, *after, *behind), value=fill)


def _groups(channels: Dim, inside: Dim, outputs: Dim) -> int:
    """How many groups the channels fall into, by what the filters take at once."""
    if not isinstance(channels, int) or not isinstance(inside, int) or channels == inside:
        return 1
    if inside == 0 or channels % inside or (isinstance(outputs, int) and outputs % (channels // inside)):
        raise ShapeError(
            "channels do not fall into groups that fit the filters", got=f"{channels} channels, filters of {inside} for {outputs}",
            expected="filters whose channels divide the input's, outputs divisible by the groups",
        )  # fmt: skip
    return channels // inside
