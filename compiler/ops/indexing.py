"""Reading and adding at places computed at run time."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, at_most, maximum
from pierian.compiler.dtype import DType, as_dtype, float32, int32, int64
from pierian.compiler.errors import ArgumentError, DTypeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.nodes import Axis
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType, normalize_axis


def _check_indices(indices: TensorType) -> None:
    if indices.dtype not in (int32, int64):
        raise DTypeError("indices must be integers", got=indices, expected="int32 or int64")


def _place(s: ScalarBuilder, index: Scalar, size: Dim) -> Scalar:
    """A user's index as a position inside the axis: negative ones count from the end, what lies outside is clamped."""
    wide = s.convert(index, int64)
    extent = s.dim(size)
    counted = s.select(s.lt(wide, 0), s.add(wide, extent), wide)
    return s.max(s.min(counted, s.sub(extent, 1)), 0)


def _place_reference(indices: Any, size: int) -> Any:
    wide = indices.astype(np.int64)
    return np.clip(np.where(wide < 0, wide + size, wide), 0, max(size - 1, 0))


@operator()
def gather(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    """Slices of `x` along `axis` at `indices`: the axis is replaced by the shape of `indices`.

    Negative indices count from the end. Indices outside the axis are clamped to it.
    """


@gather.normalize
def _gather_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    if types[0].rank == 0:
        raise ArgumentError("a scalar cannot be indexed", got=types[0])
    return {"axis": normalize_axis(attributes["axis"], types[0].rank)}


@gather.infer
def _gather_infer(x: TensorType, indices: TensorType, axis: int) -> TensorType:
    _check_indices(indices)
    if x.shape[axis] == 0 and indices.size != 0:
        raise ArgumentError("an empty axis cannot be indexed", got=x)
    return TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@gather.constraints
def _gather_constraints(x: TensorType, indices: TensorType, axis: int) -> list[Any]:
    """Where there is an index, there is an element."""
    return [at_most(-maximum(-1, -indices.size), x.shape[axis])]


@gather.gradient
def _gather_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, indices = node.inputs
    return b.scatter_add(b.zeros_like(x), indices, dz, axis=node.attributes["axis"]), None


@gather.reference
def _gather_reference(x: Any, indices: Any, axis: int) -> Any:
    return np.take(x, _place_reference(indices, x.shape[axis]), axis)


@gather.lower
def _gather_lower(k: Any, node: Node, index: Any) -> Scalar:
    x, indices = node.inputs
    axis = node.attributes["axis"]
    rank = indices.type.rank
    at = _place(k.s, k.read(indices, tuple(index[axis : axis + rank])), x.shape[axis])
    return k.read(x, (*index[:axis], at, *index[axis + rank :]))


@operator(ulp=None)
def scatter_add(x: Tensor, indices: Tensor, updates: Tensor, axis: int = 0) -> Tensor:
    """`x` with slices of `updates` added along `axis` at `indices`, one after the other in order.

    `updates` has the shape that `gather(x, indices, axis)` has. Indices are treated as `gather` does.
    """


@scatter_add.normalize
def _scatter_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {"axis": normalize_axis(attributes["axis"], types[0].rank)}


@scatter_add.infer
def _scatter_infer(x: TensorType, indices: TensorType, updates: TensorType, axis: int) -> TensorType:
    expected = _gather_infer(x, indices, axis)
    if updates.dtype is not x.dtype or updates.rank != expected.rank:
        raise ArgumentError("updates do not fit", got=updates, expected=expected)
    return x


@scatter_add.constraints
def _scatter_constraints(x: TensorType, indices: TensorType, updates: TensorType, axis: int) -> list[Any]:
    shapes = zip(updates.shape, _gather_infer(x, indices, axis).shape, strict=True)
    return [*shapes, *_gather_constraints(x, indices, axis)]


@scatter_add.gradient
def _scatter_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return dz, None, b.gather(dz, node.inputs[1], axis=node.attributes["axis"])


@scatter_add.reference
def _scatter_reference(x: Any, indices: Any, updates: Any, axis: int) -> Any:
    result = np.moveaxis(x.copy(), axis, 0)
    places = _place_reference(indices, x.shape[axis]).reshape(-1)
    rank = indices.ndim
    moved = np.moveaxis(updates, range(axis, axis + rank), range(rank)).reshape(len(places), *result.shape[1:])
    np.add.at(result, places, moved)
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))


@scatter_add.kernel
def _scatter_kernel(k: Any, node: Node) -> None:
    """Copy `x`, then walk the indices in order; the axes before and after the indexed one are independent."""
    x, indices, updates = node.inputs
    axis = node.attributes["axis"]
    target = k.output(node.output)
    k.copy(x, node.output)
    before = [k.new_axis(dim) for dim in x.shape[:axis]]
    walked = [k.new_axis(dim) for dim in indices.shape]
    after = [k.new_axis(dim) for dim in x.shape[axis + 1 :]]
    lead = tuple(symbol for _, symbol in before)
    at = _place(k.s, k.read(indices, tuple(symbol for _, symbol in walked)), x.shape[axis])
    tail = tuple(symbol for _, symbol in after)
    place = (*lead, at, *tail)
    update = k.read(updates, (*lead, *(symbol for _, symbol in walked), *tail))
    outer: tuple[Axis, ...] = (*(a for a, _ in before), *(a for a, _ in walked))
    total = k.s.add(k.load(target, place, x.dtype), update)
    k.serial(outer, target, place, total, tuple(a for a, _ in after))


@operator()
def one_hot(indices: Tensor, depth: int, dtype: DType = float32) -> Tensor:
    """1 at the position each index says along a new last axis of `depth` elements, else 0; indices outside give
    zeros only."""


@one_hot.normalize
def _one_hot_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": as_dtype(attributes["dtype"])}


@one_hot.infer
def _one_hot_infer(indices: TensorType, depth: Any, dtype: DType) -> TensorType:
    _check_indices(indices)
    return TensorType(dtype, (*indices.shape, depth))


one_hot.gradient(lambda b, node, dz: (None,))


@one_hot.reference
def _one_hot_reference(indices: Any, depth: int, dtype: DType) -> Any:
    return (indices[..., None] == np.arange(depth)).astype(dtype.numpy)


@one_hot.lower
def _one_hot_lower(k: Any, node: Node, index: Any) -> Scalar:
    from pierian.compiler.ops.rules import index_value

    wanted = k.s.convert(k.read(node.inputs[0], tuple(index[:-1])), int64)
    return k.s.convert(k.s.eq(wanted, index_value(k.s, index[-1])), node.attributes["dtype"])


gather.samples = [
    ("f32[5,3] i32[4]", {}), ("f32[3,5,2] i64[2,2]", {"axis": 1}), ("f64[4] i64[]", {}), ("f32[6] i32[0]", {}),
]  # fmt: skip
scatter_add.samples = [("f32[5,3] i32[4] f32[4,3]", {}), ("f64[2,5,20] i64[3] f64[2,3,20]", {"axis": 1})]
one_hot.samples = [("i32[4]", {"depth": 5}), ("i64[2,3]", {"depth": 3, "dtype": "float64"})]
