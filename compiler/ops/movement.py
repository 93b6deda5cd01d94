"""Movement: the same elements at other places. All of it is index maps, none of it copies by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, Symbolic, definitely_differ, divide_exactly, product
from pierian.compiler.errors import ArgumentError, ShapeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import (
    TensorType,
    broadcast_constraints,
    broadcast_shapes,
    format_shape,
    normalize_axes,
    normalize_axis,
)  # fmt: skip

Sizes = Sequence[Any]


def sizes(shape: Any) -> tuple[Dim, ...]:
    """A shape argument: an integer or a sequence of integers and symbolic sizes."""
    given = shape if isinstance(shape, (tuple, list)) else (shape,)
    for dim in given:
        if not isinstance(dim, (int, Symbolic)) or isinstance(dim, bool):
            raise ArgumentError("a shape is made of integers and symbolic sizes", got=dim)
    return tuple(given)


@operator(alias=True)
def reshape(x: Tensor, shape: Sizes) -> Tensor:
    """The elements of `x` in row-major order in another shape; one size may be -1 and follows from the others."""


@reshape.normalize
def _reshape_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    (x,) = types
    shape = sizes(attributes["shape"])
    if shape.count(-1) > 1:
        raise ArgumentError("only one size can be -1", got=format_shape(shape))
    if -1 in shape:
        rest = product([dim for dim in shape if dim != -1])
        if rest == 0:
            raise ShapeError("a size of -1 is not determined beside an empty axis", got=format_shape(shape))
        missing = divide_exactly(x.size, rest)
        if missing is None:
            if isinstance(x.size, int) and isinstance(rest, int):
                raise ShapeError("elements do not fill the shape", got=x, expected=format_shape(shape))
            missing = x.size // rest
        shape = tuple(missing if dim == -1 else dim for dim in shape)
    return {"shape": shape}


@reshape.infer
def _reshape_infer(x: TensorType, shape: tuple[Dim, ...]) -> TensorType:
    if definitely_differ(x.size, product(shape)):
        raise ShapeError("elements do not fill the shape", got=x, expected=format_shape(shape))
    return TensorType(x.dtype, shape)


@reshape.constraints
def _reshape_constraints(x: TensorType, shape: tuple[Dim, ...]) -> list[Any]:
    return [(x.size, product(shape))]


@reshape.gradient
def _reshape_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.reshape(dz, shape=node.inputs[0].shape),)


@reshape.reference
def _reshape_reference(x: Any, shape: tuple[int, ...]) -> Any:
    return np.reshape(x, shape)


@operator()
def permute_dims(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """`x` with its axes in another order; reversed where `axes` is not given."""


@permute_dims.normalize
def _permute_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    rank = types[0].rank
    axes = attributes["axes"]
    chosen = tuple(reversed(range(rank))) if axes is None else tuple(normalize_axis(a, rank) for a in axes)
    if sorted(chosen) != list(range(rank)):
        raise ArgumentError("axes must name every axis once", got=axes, expected=f"an order of {rank} axes")
    return {"axes": chosen}


@permute_dims.infer
def _permute_infer(x: TensorType, axes: tuple[int, ...]) -> TensorType:
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in axes))


@permute_dims.gradient
def _permute_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    axes = node.attributes["axes"]
    return (b.permute_dims(dz, axes=tuple(axes.index(axis) for axis in range(len(axes)))),)


@permute_dims.reference
def _permute_reference(x: Any, axes: tuple[int, ...]) -> Any:
    return np.transpose(x, axes)


@permute_dims.index_map
def _permute_index_map(index: Any, x: TensorType, axes: tuple[int, ...]) -> Any:
    return tuple(index[axes.index(axis)] for axis in range(len(axes)))


@operator()
def broadcast_to(x: Tensor, shape: Sizes) -> Tensor:
    """`x` repeated along new leading axes and along axes of size 1 up to `shape`."""


@broadcast_to.normalize
def _broadcast_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {"shape": sizes(attributes["shape"])}


@broadcast_to.infer
def _broadcast_infer(x: TensorType, shape: tuple[Dim, ...]) -> TensorType:
    fits = len(shape) >= x.rank and all(
        dim == 1 or not definitely_differ(dim, target)
        for dim, target in zip(x.shape, shape[len(shape) - x.rank :], strict=True)
    )
    if not fits:
        raise ShapeError("the shape does not broadcast to the target", got=x, expected=format_shape(shape))
    return TensorType(x.dtype, shape)


@broadcast_to.constraints
def _broadcast_constraints(x: TensorType, shape: tuple[Dim, ...]) -> list[Any]:
    return broadcast_constraints(x.shape, shape)


@broadcast_to.gradient
def _broadcast_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (rules.unbroadcast(b, dz, node.inputs[0]),)


@broadcast_to.reference
def _broadcast_reference(x: Any, shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(x, shape)


@broadcast_to.index_map
def _broadcast_index_map(index: Any, x: TensorType, shape: tuple[Dim, ...]) -> Any:
    offset = len(shape) - x.rank
    return tuple(0 if dim == 1 else index[axis + offset] for axis, dim in enumerate(x.shape))


@operator()
def expand_dims(x: Tensor, axis: int | Sequence[int] = 0) -> Tensor:
    """`x` with axes of size 1 put in at the positions `axis` of the result."""


@expand_dims.normalize
def _expand_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    axis = attributes["axis"]
    count = 1 if isinstance(axis, int) else len(axis)
    return {"axis": normalize_axes(axis, types[0].rank + count)}


@expand_dims.infer
def _expand_infer(x: TensorType, axis: tuple[int, ...]) -> TensorType:
    rest = iter(x.shape)
    return TensorType(x.dtype, tuple(1 if i in axis else next(rest) for i in range(x.rank + len(axis))))


@expand_dims.gradient
def _expand_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.squeeze(dz, axis=node.attributes["axis"]),)


@expand_dims.reference
def _expand_reference(x: Any, axis: tuple[int, ...]) -> Any:
    return np.expand_dims(x, axis)


@expand_dims.index_map
def _expand_index_map(index: Any, x: TensorType, axis: tuple[int, ...]) -> Any:
    return tuple(entry for position, entry in enumerate(index) if position not in axis)


@operator()
def squeeze(x: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    """`x` without the axes `axis`, which must have size 1; without all that do where `axis` is not given."""


@squeeze.normalize
def _squeeze_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    (x,) = types
    axis = attributes["axis"]
    if axis is None:
        return {"axis": tuple(i for i, dim in enumerate(x.shape) if dim == 1)}
    return {"axis": normalize_axes(axis, x.rank)}


@squeeze.infer
def _squeeze_infer(x: TensorType, axis: tuple[int, ...]) -> TensorType:
    if any(definitely_differ(x.shape[i], 1) for i in axis):
        raise ShapeError("only axes of size 1 can be taken out", got=x, where=f"squeeze of axes {axis}")
    return TensorType(x.dtype, tuple(dim for i, dim in enumerate(x.shape) if i not in axis))


@squeeze.constraints
def _squeeze_constraints(x: TensorType, axis: tuple[int, ...]) -> list[Any]:
    return [(x.shape[i], 1) for i in axis]


@squeeze.gradient
def _squeeze_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.expand_dims(dz, axis=node.attributes["axis"]),)


@squeeze.reference
def _squeeze_reference(x: Any, axis: tuple[int, ...]) -> Any:
    return np.squeeze(x, axis)


@squeeze.index_map
def _squeeze_index_map(index: Any, x: TensorType, axis: tuple[int, ...]) -> Any:
    rest = iter(index)
    return tuple(0 if i in axis else next(rest) for i in range(x.rank))


@operator()
def slice(x: Tensor, begin: Sizes, end: Sizes, step: Sequence[int]) -> Tensor:
    """Every `step`-th element from `begin` up to `end` (left out), axis by axis.

    Positions count from the front and lie within the axis. With a negative step `begin` is the first element taken and
    `end` may be -1, before the first. Indexing a tensor (`x[1:, ::-1]`) makes these arguments.
    """


@slice.normalize
def _slice_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    found = {name: tuple(attributes[name]) for name in ("begin", "end", "step")}
    if any(len(value) != types[0].rank for value in found.values()):
        raise ArgumentError("begin, end and step are needed for each axis", got=found, expected=types[0].rank)
    if any(not isinstance(step, int) or step == 0 for step in found["step"]):
        raise ArgumentError("steps are integers other than 0", got=found["step"])
    return found


@slice.infer
def _slice_infer(x: TensorType, begin: Any, end: Any, step: Any) -> TensorType:
    shape: list[Dim] = []
    for first, last, stride, dim in zip(begin, end, step, x.shape, strict=True):
        distance = last - first if stride > 0 else first - last
        count = (distance + (abs(stride) - 1)) // abs(stride)
        known = all(isinstance(one, int) for one in (first, last, dim))
        if known and not (0 <= first <= dim and -1 <= last <= dim):
            raise ShapeError("the slice leaves the axis", got=f"{first}:{last}:{stride}", expected=f"within 0:{dim}")
        shape.append(max(count, 0) if isinstance(count, int) else count)
    return TensorType(x.dtype, shape)


@slice.gradient
def _slice_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x = node.inputs[0]
    a = node.attributes
    if all(step == 1 for step in a["step"]):
        after = tuple(dim - end for dim, end in zip(x.shape, a["end"], strict=True))
        return (b.pad(dz, before=a["begin"], after=after),)
    return (b.unslice(dz, shape=x.shape, begin=a["begin"], step=a["step"]),)


@slice.reference
def _slice_reference(x: Any, begin: Any, end: Any, step: Any) -> Any:
    key = tuple(
        np.s_[first : (None if last < 0 and stride < 0 else last) : stride]
        for first, last, stride in zip(begin, end, step, strict=True)
    )
    return x[key]


@slice.index_map
def _slice_index_map(index: Any, x: TensorType, begin: Any, end: Any, step: Any) -> Any:
    return tuple(
        rules.index_add(rules.index_multiply(entry, stride), first)
        for entry, first, stride in zip(index, begin, step, strict=True)
    )


@operator(public=False)
def unslice(x: Tensor, shape: Sizes, begin: Sizes, step: Sequence[int]) -> Tensor:
    """Zeros of `shape` with `x` at every `step`-th place from `begin` on: the inverse of `slice`."""


@unslice.infer
def _unslice_infer(x: TensorType, shape: Any, begin: Any, step: Any) -> TensorType:
    return TensorType(x.dtype, shape)


@unslice.gradient
def _unslice_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    a = node.attributes
    end = tuple(
        first + dim * stride for first, dim, stride in zip(a["begin"], node.inputs[0].shape, a["step"], strict=True)
    )
    limits = zip(end, a["step"], node.output.shape, strict=True)
    clipped = tuple(_within(last, stride, dim) for last, stride, dim in limits)
    return (b.slice(dz, begin=a["begin"], end=clipped, step=a["step"]),)


def _within(last: Any, stride: int, dim: Any) -> Any:
    if not isinstance(last, int) or not isinstance(dim, int):
        return last
    return min(last, dim) if stride > 0 else max(last, -1)


@unslice.reference
def _unslice_reference(x: Any, shape: Any, begin: Any, step: Any) -> Any:
    result = np.zeros(shape, x.dtype)
    places = [first + stride * np.arange(n) for first, stride, n in zip(begin, step, x.shape, strict=True)]
    result[np.ix_(*places)] = x
    return result


@unslice.lower
def _unslice_lower(k: Any, node: Node, index: Any) -> Scalar:
    s = k.s
    x = node.inputs[0]
    inside = s.const(True, rules.bool_)
    source = []
    for entry, first, stride, dim in zip(
        index, node.attributes["begin"], node.attributes["step"], x.shape, strict=True
    ):
        offset = rules.index_value(s, rules.index_add(entry, -first))
        place = s.div(offset, stride)
        exact = s.eq(s.mul(place, stride), offset)
        last = s.sub(s.dim(dim), 1)
        in_range = s.logical_and(s.compare("ge", place, 0), s.compare("le", place, last))
        inside = s.logical_and(inside, s.logical_and(exact, in_range))
        source.append(s.max(s.min(place, last), 0))
    return s.select(inside, k.read(x, tuple(source)), s.const(0, x.dtype))


@operator()
def pad(x: Tensor, before: Sizes, after: Sizes, value: float = 0) -> Tensor:
    """`x` with `before` and `after` elements equal to `value` put around it, axis by axis."""


@pad.normalize
def _pad_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    found = {name: tuple(attributes[name]) for name in ("before", "after")}
    if any(len(amounts) != types[0].rank for amounts in found.values()):
        raise ArgumentError("padding is needed for each axis", got=found, expected=types[0].rank)
    if any(isinstance(amount, int) and amount < 0 for amounts in found.values() for amount in amounts):
        raise ArgumentError("padding cannot be negative", got=found)
    return found


@pad.infer
def _pad_infer(x: TensorType, before: Any, after: Any, value: float) -> TensorType:
    return TensorType(x.dtype, tuple(b + d + a for b, d, a in zip(before, x.shape, after, strict=True)))


@pad.gradient
def _pad_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    begin = node.attributes["before"]
    shape = node.inputs[0].shape
    end = tuple(first + dim for first, dim in zip(begin, shape, strict=True))
    return (b.slice(dz, begin=begin, end=end, step=(1,) * len(shape)),)


@pad.reference
def _pad_reference(x: Any, before: Any, after: Any, value: float) -> Any:
    return np.pad(x, list(zip(before, after, strict=True)), constant_values=x.dtype.type(value))


@pad.lower
def _pad_lower(k: Any, node: Node, index: Any) -> Scalar:
    x = node.inputs[0]
    before, after = node.attributes["before"], node.attributes["after"]
    moved = [rules.index_add(entry, -first) for entry, first in zip(index, before, strict=True)]
    padded = {axis: dim for axis, dim in enumerate(x.shape) if not before[axis] == after[axis] == 0}
    found: Scalar = k.read_inside(x, tuple(moved), padded, node.attributes["value"])
    return found


@operator(promote="common")
def concat(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors one after the other along `axis`; their other sizes are equal."""


@concat.normalize
def _concat_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    if not types:
        raise ArgumentError("concat needs at least one tensor")
    return {"axis": normalize_axis(attributes["axis"], types[0].rank)}


@concat.infer
def _concat_infer(*types: TensorType, axis: int) -> TensorType:
    first = types[0]
    total: Dim = 0
    for type_ in types:
        agrees = type_.rank == first.rank and all(
            i == axis or not definitely_differ(a, b)
            for i, (a, b) in enumerate(zip(type_.shape, first.shape, strict=True))
        )
        if not agrees:
            raise ShapeError(
                "shapes to concatenate differ off the axis", got=", ".join(map(str, types)), where=f"axis {axis}"
            )
        total = type_.shape[axis] + total
    return TensorType(first.dtype, tuple(total if i == axis else dim for i, dim in enumerate(first.shape)))


@concat.constraints
def _concat_constraints(*types: TensorType, axis: int) -> list[Any]:
    return [
        (dim, wanted)
        for type_ in types[1:]
        for i, (dim, wanted) in enumerate(zip(type_.shape, types[0].shape, strict=True))
        if i != axis
    ]


@concat.gradient
def _concat_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    axis = node.attributes["axis"]
    parts = []
    start: Dim = 0
    for value in node.inputs:
        stop = start + value.shape[axis]
        begin = tuple(start if i == axis else 0 for i in range(value.type.rank))
        end = tuple(stop if i == axis else dim for i, dim in enumerate(value.shape))
        parts.append(b.slice(dz, begin=begin, end=end, step=(1,) * value.type.rank))
        start = stop
    return tuple(parts)


@concat.reference
def _concat_reference(*arrays: Any, axis: int) -> Any:
    return np.concatenate(arrays, axis)


@concat.lower
def _concat_lower(k: Any, node: Node, index: Any) -> Scalar:
    s = k.s
    axis = node.attributes["axis"]
    at = rules.index_value(s, index[axis])
    result = None
    start: Dim = 0
    pieces = []
    for value in node.inputs:
        place = s.sub(at, s.dim(start))
        safe = s.max(s.min(place, s.sub(s.dim(value.shape[axis]), 1)), 0)
        where = tuple(safe if i == axis else entry for i, entry in enumerate(index))
        pieces.append((start, k.read(value, where)))
        start = value.shape[axis] + start
    for begin, piece in pieces:
        result = piece if result is None else s.select(s.compare("ge", at, s.dim(begin)), piece, result)
    assert result is not None
    return result


@concat.pieces
def _concat_pieces(*types: TensorType, axis: int) -> list[tuple[Dim, ...]]:
    starts: list[Dim] = [0]
    for type_ in types[:-1]:
        starts.append(starts[-1] + type_.shape[axis])
    return [tuple(start if i == axis else 0 for i in range(types[0].rank)) for start in starts]


@operator(promote="common")
def stack(xs: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis."""


@stack.infer
def _stack_infer(*types: TensorType, axis: int) -> TensorType:
    shape = list(broadcast_shapes(*(type_.shape for type_ in types)))
    shape.insert(normalize_axis(axis, len(shape) + 1), len(types))
    return TensorType(types[0].dtype, shape)


@stack.expand
def _stack_expand(b: Any, *xs: Value, axis: int) -> Value:
    position = normalize_axis(axis, xs[0].type.rank + 1)
    return b.concat([b.expand_dims(x, axis=position) for x in xs], axis=position)


@operator()
def flip(x: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    """`x` with the order along `axis` (all axes by default) reversed."""


@flip.infer
def _flip_infer(x: TensorType, axis: Any) -> TensorType:
    normalize_axes(axis, x.rank)
    return x


@flip.expand
def _flip_expand(b: Any, x: Value, axis: Any) -> Value:
    axes = normalize_axes(axis, x.type.rank)
    return b.slice(
        x,
        begin=tuple(dim - 1 if i in axes else 0 for i, dim in enumerate(x.shape)),
        end=tuple(-1 if i in axes else dim for i, dim in enumerate(x.shape)),
        step=tuple(-1 if i in axes else 1 for i in range(x.type.rank)),
    )


@operator()
def tile(x: Tensor, repetitions: Sequence[int]) -> Tensor:
    """`x` laid out `repetitions[i]` times along each axis `i`."""


@tile.infer
def _tile_infer(x: TensorType, repetitions: Any) -> TensorType:
    if len(repetitions) != x.rank:
        raise ArgumentError("repetitions are needed for each axis", got=repetitions, expected=x.rank)
    return TensorType(x.dtype, tuple(dim * count for dim, count in zip(x.shape, repetitions, strict=True)))


@tile.expand
def _tile_expand(b: Any, x: Value, repetitions: Any) -> Value:
    rank = x.type.rank
    parted = b.expand_dims(x, axis=tuple(range(0, 2 * rank, 2))) if rank else x
    shape = tuple(size for pair in zip(repetitions, x.shape, strict=True) for size in pair)
    whole = tuple(dim * count for dim, count in zip(x.shape, repetitions, strict=True))
    return b.reshape(b.broadcast_to(parted, shape=shape), shape=whole)


# Cases for tests: input types and attributes.
reshape.samples = [("f32[2,6]", {"shape": (3, -1)}), ("i32[4]", {"shape": (2, 2)}), ("f64[0,3]", {"shape": (0,)})]
permute_dims.samples = [("f32[2,3,4]", {"axes": (2, 0, 1)}), ("f32[5,3]", {})]
broadcast_to.samples = [("f32[3,1]", {"shape": (2, 3, 4)}), ("f64[]", {"shape": (5,)})]
expand_dims.samples = [("f32[3]", {"axis": (0, 2)}), ("f32[3,4]", {"axis": -1})]
squeeze.samples = [("f32[1,3,1]", {"axis": (0, 2)}), ("f32[1,3]", {})]
slice.samples = [
    ("f32[5,6]", {"begin": (1, 5), "end": (4, -1), "step": (1, -2)}),
    ("f32[7]", {"begin": (1,), "end": (6,), "step": (2,)}),
    ("f64[4]", {"begin": (1,), "end": (3,), "step": (1,)}),
]
unslice.samples = [("f32[3]", {"shape": (7,), "begin": (5,), "step": (-2,)})]
pad.samples = [("f32[2,3]", {"before": (1, 0), "after": (0, 2), "value": 1.5})]
concat.samples = [("f32[2,3] f32[2,1] f32[2,2]", {"axis": 1}), ("f64[2] f64[3]", {})]
stack.samples = [("f32[2,3] f32[2,3]", {"axis": 1})]
flip.samples = [("f32[3,4]", {"axis": 1}), ("f32[5]", {})]
tile.samples = [("f32[2,3]", {"repetitions": (2, 1)})]
