"""Joining: several tensors, or one several times, laid side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, ceildiv, definitely_differ
from pierian.compiler.dtype import bool_
from pierian.compiler.errors import ArgumentError, ShapeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.ops.movement import Sizes
from pierian.compiler.shape import (
    TensorType,
    broadcast_shapes,
    format_shape,
    normalize_axis,
)  # fmt: skip

# Along an axis of a whole: where the first element of a part lies, and how far apart its elements do.
Place = tuple[Dim, int]


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
def _concat_pieces(*types: TensorType, axis: int) -> list[tuple[Place, ...]]:
    starts: list[Dim] = [0]
    for type_ in types[:-1]:
        starts.append(starts[-1] + type_.shape[axis])
    return [tuple((start if i == axis else 0, 1) for i in range(types[0].rank)) for start in starts]


@operator(public=False)
def interleave(xs: Sequence[Tensor], shape: Sizes, counts: Sequence[int]) -> Tensor:
    """Tensors laid between each other: along each axis of the result, as many take turns as `counts` says.

    The element at place p is that of the tensor for the residues p % counts (the last axis fastest) at place p // counts.
    """


@interleave.normalize
def _interleave_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    found = {name: tuple(attributes[name]) for name in ("shape", "counts")}
    if not types or math.prod(found["counts"]) != len(types) or any(count < 1 for count in found["counts"]):
        raise ArgumentError("a tensor is needed for each residue", got=len(types), expected=found["counts"])
    if any(len(value) != types[0].rank for value in found.values()):
        raise ArgumentError("shape and counts are needed for each axis", got=found, expected=types[0].rank)
    return found


def residues(counts: Sequence[int]) -> list[tuple[int, ...]]:
    """Which places each of the tensors is for, in their order."""
    return list(itertools.product(*(range(count) for count in counts)))


def share(size: Dim, count: int, residue: int) -> Dim:
    """How many of so many places have a residue by `count`."""
    return ceildiv(size - residue, count)


@interleave.infer
def _interleave_infer(*types: TensorType, shape: Any, counts: Any) -> TensorType:
    for type_, turn in zip(types, residues(counts), strict=True):
        wanted = [share(*axis) for axis in zip(shape, counts, turn, strict=True)]
        if type_.rank != len(shape) or any(definitely_differ(*pair) for pair in zip(type_.shape, wanted, strict=True)):
            raise ShapeError("a tensor has another shape than its share", got=type_, expected=format_shape(wanted))
    return TensorType(types[0].dtype, shape)


@interleave.gradient
def _interleave_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    counts = node.attributes["counts"]
    begins = (tuple(map(_not_beyond, turn, dz.shape)) for turn in residues(counts))
    return tuple(b.slice(dz, begin=begin, end=dz.shape, step=counts) for begin in begins)


def _not_beyond(first: int, size: Dim) -> int:
    return min(first, size) if isinstance(size, int) else first


@interleave.reference
def _interleave_reference(*arrays: Any, shape: Any, counts: Any) -> Any:
    result = np.empty(shape, arrays[0].dtype)
    for array, turn in zip(arrays, residues(counts), strict=True):
        result[tuple(np.s_[first::count] for first, count in zip(turn, counts, strict=True))] = array
    return result


@interleave.lower
def _interleave_lower(k: Any, node: Node, index: Any) -> Scalar:
    s, counts = k.s, node.attributes["counts"]
    at = [rules.index_value(s, entry) for entry in index]
    places = [s.div(entry, count) if count > 1 else entry for entry, count in zip(at, counts, strict=True)]
    result = None
    for value, turn in zip(node.inputs, residues(counts), strict=True):
        here: Scalar = s.const(True, bool_)
        where = list(index)
        for axis, (count, first) in enumerate(zip(counts, turn, strict=True)):
            if count > 1:
                here = s.logical_and(here, s.eq(s.sub(at[axis], s.mul(places[axis], count)), first))
                where[axis] = s.max(s.min(places[axis], s.sub(s.dim(value.shape[axis]), 1)), 0)
        piece = k.read(value, tuple(where))
        result = piece if result is None else s.select(here, piece, result)
    assert result is not None
    return result


@interleave.pieces
def _interleave_pieces(*types: TensorType, shape: Any, counts: Any) -> list[tuple[Place, ...]]:
    return [tuple(zip(turn, counts, strict=True)) for turn in residues(counts)]


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
concat.samples = [("f32[2,3] f32[2,1] f32[2,2]", {"axis": 1}), ("f64[2] f64[3]", {})]
interleave.samples = [
    ("f32[2,3] f32[2,3] f32[2,2]", {"shape": (2, 8), "counts": (1, 3)}),
    ("f64[2,2] f64[2,1] f64[1,2] f64[1,1]", {"shape": (3, 3), "counts": (2, 2)}),
]
stack.samples = [("f32[2,3] f32[2,3]", {"axis": 1})]
tile.samples = [("f32[2,3]", {"repetitions": (2, 1)})]
