"""Sums of products: matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, definitely_differ, product
from pierian.compiler.dtype import bool_
from pierian.compiler.errors import DTypeError, ShapeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType, broadcast_constraints, broadcast_shapes, format_shape


@operator(ulp=None, cost=64, public=False)
def dot_general(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Batched matrix product of two tensors of rank two or more; leading axes broadcast. Each matrix may be read
    transposed, at no cost."""


def _matrix(type_: TensorType, transposed: bool) -> tuple[Dim, Dim]:
    rows, columns = type_.shape[-2:]
    return (columns, rows) if transposed else (rows, columns)


@dot_general.infer
def _dot_infer(x: TensorType, y: TensorType, transpose_x: bool, transpose_y: bool) -> TensorType:
    if x.dtype is not y.dtype or x.dtype is bool_:
        raise DTypeError("matrix products need two equal numeric element types", got=f"{x.dtype}, {y.dtype}")
    if x.rank < 2 or y.rank < 2:
        raise ShapeError("matrix products need at least two axes", got=f"{x}, {y}")
    m, k = _matrix(x, transpose_x)
    other, n = _matrix(y, transpose_y)
    if definitely_differ(k, other):
        raise ShapeError(
            "inner sizes of the matrix product differ", got=f"{format_shape(x.shape)} and {format_shape(y.shape)}",
            expected=f"{k} rows in the second matrix",
        )  # fmt: skip
    return TensorType(x.dtype, (*broadcast_shapes(x.shape[:-2], y.shape[:-2]), m, n))


@dot_general.constraints
def _dot_constraints(x: TensorType, y: TensorType, transpose_x: bool, transpose_y: bool) -> list[Any]:
    batch = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    inner = (_matrix(x, transpose_x)[1], _matrix(y, transpose_y)[0])
    return [inner, *broadcast_constraints(x.shape[:-2], batch), *broadcast_constraints(y.shape[:-2], batch)]


@dot_general.gradient
def _dot_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, y = node.inputs
    tx, ty = node.attributes["transpose_x"], node.attributes["transpose_y"]
    if x.type.rank > 2 and y.type.rank == 2 and not tx:
        return _matrix_for_all(b, x, y, dz, ty)
    # z = X Y with X = x or x^T: dX = dz Y^T, dY = X^T dz, each written out for the transposed reading.
    if tx:
        dx = b.dot_general(y, dz, transpose_x=ty, transpose_y=True)
    else:
        dx = b.dot_general(dz, y, transpose_x=False, transpose_y=not ty)
    if ty:
        dy = b.dot_general(dz, x, transpose_x=True, transpose_y=tx)
    else:
        dy = b.dot_general(x, dz, transpose_x=not tx, transpose_y=False)
    return rules.unbroadcast(b, dx, x), rules.unbroadcast(b, dy, y)


def _matrix_for_all(b: Any, x: Value, y: Value, dz: Value, ty: bool) -> tuple[Value | None, ...]:
    """The gradients where one matrix multiplies a whole batch: the batch's rows are the rows of one larger matrix."""
    dx = b.dot_general(dz, y, transpose_x=False, transpose_y=not ty)
    rows = product(x.shape[:-1])
    left = b.reshape(x, shape=(rows, x.shape[-1]))
    right = b.reshape(dz, shape=(rows, dz.shape[-1]))
    if ty:
        left, right = right, left
    return dx, b.dot_general(left, right, transpose_x=True, transpose_y=False)


@dot_general.reference
def _dot_reference(x: Any, y: Any, transpose_x: bool, transpose_y: bool) -> Any:
    wide = np.float64 if x.dtype.kind == "f" else x.dtype
    left = np.swapaxes(x, -1, -2) if transpose_x else x
    right = np.swapaxes(y, -1, -2) if transpose_y else y
    return np.matmul(left.astype(wide), right.astype(wide)).astype(x.dtype)


@dot_general.contract
def _dot_contract(x: TensorType, y: TensorType, transpose_x: bool, transpose_y: bool) -> Any:
    k = _matrix(x, transpose_x)[1]

    def maps(index: Any, inner: Any) -> Any:
        *batch, row, column = index
        (at,) = inner
        left = (at, row) if transpose_x else (row, at)
        right = (column, at) if transpose_y else (at, column)
        return (*_batch(batch, x), *left), (*_batch(batch, y), *right)

    return (k,), maps


def _batch(index: list[Any], type_: TensorType) -> tuple[Any, ...]:
    offset = len(index) - (type_.rank - 2)
    return tuple(0 if dim == 1 else index[offset + axis] for axis, dim in enumerate(type_.shape[:-2]))


@operator(promote="common")
def matmul(x: Tensor, y: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """Matrix product with NumPy's rules: vectors are taken as a row on the left and a column on the right, leading
    axes are batches and broadcast. `transpose_a` and `transpose_b` read the matrices transposed."""


@matmul.infer
def _matmul_infer(x: TensorType, y: TensorType, transpose_a: bool, transpose_b: bool) -> TensorType:
    if x.rank == 0 or y.rank == 0:
        raise ShapeError("matmul needs at least one axis on both sides", got=f"{x}, {y}", advice="use multiply")
    left = x if x.rank > 1 else TensorType(x.dtype, (1, *x.shape))
    right = y if y.rank > 1 else TensorType(y.dtype, (*y.shape, 1))
    shape = list(_dot_infer(left, right, transpose_a and x.rank > 1, transpose_b and y.rank > 1).shape)
    if y.rank == 1:
        del shape[-1]
    if x.rank == 1:
        del shape[-1 if y.rank == 1 else -2]
    return TensorType(x.dtype, shape)


@matmul.expand
def _matmul_expand(b: Any, x: Value, y: Value, transpose_a: bool, transpose_b: bool) -> Value:
    left = x if x.type.rank > 1 else b.expand_dims(x, axis=0)
    right = y if y.type.rank > 1 else b.expand_dims(y, axis=1)
    result = b.dot_general(
        left, right, transpose_x=transpose_a and x.type.rank > 1, transpose_y=transpose_b and y.type.rank > 1
    )
    dropped = tuple(([-1] if y.type.rank == 1 else []) + ([-2] if x.type.rank == 1 else []))
    return b.squeeze(result, axis=dropped) if dropped else result


@operator(promote="common")
def outer(x: Tensor, y: Tensor) -> Tensor:
    """All products of an element of the vector `x` with one of the vector `y`."""


@outer.infer
def _outer_infer(x: TensorType, y: TensorType) -> TensorType:
    if x.rank != 1 or y.rank != 1:
        raise ShapeError("outer needs two vectors", got=f"{x}, {y}")
    return TensorType(x.dtype, (*x.shape, *y.shape))


@outer.expand
def _outer_expand(b: Any, x: Value, y: Value) -> Value:
    return b.multiply(b.expand_dims(x, axis=1), b.expand_dims(y, axis=0))


@operator(promote="common")
def vecdot(x: Tensor, y: Tensor, axis: int = -1) -> Tensor:
    """Sum of products along one axis; the others broadcast."""


@vecdot.infer
def _vecdot_infer(x: TensorType, y: TensorType, axis: int) -> TensorType:
    shape = list(broadcast_shapes(x.shape, y.shape))
    del shape[axis]
    return TensorType(x.dtype, shape)


@vecdot.expand
def _vecdot_expand(b: Any, x: Value, y: Value, axis: int) -> Value:
    return b.sum(b.multiply(x, y), axis=axis)


dot_general.samples = [
    ("f32[3,4] f32[4,5]", {}), ("f32[4,3] f32[5,4]", {"transpose_x": True, "transpose_y": True}),
    ("f64[2,1,3,4] f64[5,4,2]", {}), ("i32[3,4] i32[4,2]", {}), ("f32[3,0] f32[0,2]", {}),
    ("f64[2,3,4] f64[4,2]", {}), ("f64[2,3,2,4] f64[5,4]", {"transpose_y": True}),
]  # fmt: skip
matmul.samples = [("f32[3] f32[3,2]", {}), ("f32[2,3] f32[3]", {}), ("f64[3] f64[3]", {}), ("f32[2,3,4] f32[4,5]", {})]
outer.samples = [("f32[3] f32[4]", {})]
vecdot.samples = [("f32[3,4] f32[4]", {})]
