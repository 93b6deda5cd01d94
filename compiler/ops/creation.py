"""Tensors from nothing but a shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim
from pierian.compiler.dtype import DType, as_dtype, float32, int32
from pierian.compiler.errors import ArgumentError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.graph.operator import Operator
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.ops.movement import sizes
from pierian.compiler.shape import TensorType


def _shape_and_dtype(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    found = {"shape": sizes(attributes["shape"])}
    if any(isinstance(dim, int) and dim < 0 for dim in found["shape"]):
        raise ArgumentError("sizes cannot be negative", got=found["shape"])
    return {**found, "dtype": as_dtype(attributes["dtype"])}


def _filled(op: Operator, value: Callable[..., Any]) -> None:
    """Rules of an operator whose elements are all one constant."""
    op.normalize(_shape_and_dtype)
    op.infer(lambda shape, dtype, **_: TensorType(dtype, shape))
    op.gradient(lambda b, node, dz: ())
    op.reference(lambda shape, dtype, **rest: np.full(shape, value(**rest), dtype.numpy))
    op.lower(lambda k, node, index: k.s.const(value(**_rest(node)), node.attributes["dtype"]))


def _rest(node: Node) -> dict[str, Any]:
    return {name: value for name, value in node.attributes.items() if name not in ("shape", "dtype")}


@operator(cost=0)
def zeros(shape: Any, dtype: DType = float32) -> Tensor:
    """Zeros."""


@operator(cost=0)
def ones(shape: Any, dtype: DType = float32) -> Tensor:
    """Ones."""


@operator(cost=0)
def full(shape: Any, value: float, dtype: DType = float32) -> Tensor:
    """`value` everywhere."""


_filled(zeros, lambda: 0)
_filled(ones, lambda: 1)
_filled(full, lambda value: value)


def _like(op: Operator, value: Callable[..., Any]) -> None:
    """Rules of an operator whose elements are all one constant, in the form of another tensor."""
    op.infer(lambda x, **_: x)
    op.gradient(lambda b, node, dz: (None,))
    op.reference(lambda x, **rest: np.full(x.shape, value(**rest), x.dtype))
    op.lower(lambda k, node, index: k.s.const(value(**node.attributes), node.output.dtype))


@operator(cost=0)
def zeros_like(x: Tensor) -> Tensor:
    """Zeros in the shape and element type of `x`."""


@operator(cost=0)
def ones_like(x: Tensor) -> Tensor:
    """Ones in the shape and element type of `x`."""


@operator(cost=0)
def full_like(x: Tensor, value: float) -> Tensor:
    """`value` everywhere, in the shape and element type of `x`."""


_like(zeros_like, lambda: 0)
_like(ones_like, lambda: 1)
_like(full_like, lambda value: value)


@operator()
def arange(start: float, stop: float | None = None, step: float = 1, dtype: DType | None = None) -> Tensor:
    """`start`, `start + step`, ... below `stop`; with one argument from 0 up to it.

    Integers give int32 and floats float32 unless `dtype` says. The count is fixed when the graph is built; `stop` may be a
    symbolic size, with a step of 1.
    """


def _arange_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    start, stop, step = attributes["start"], attributes["stop"], attributes["step"]
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ArgumentError("the step cannot be 0")
    dtype = attributes["dtype"]
    if dtype is None:
        dtype = float32 if any(isinstance(one, float) for one in (start, stop, step)) else int32
    return {"start": start, "stop": stop, "step": step, "dtype": as_dtype(dtype)}


arange.normalize(_arange_normalize)


def _arange_count(start: Any, stop: Any, step: Any) -> Dim:
    if all(isinstance(one, (int, float)) for one in (start, stop, step)):
        return max(0, int(np.ceil((stop - start) / step)))
    if step != 1:
        raise ArgumentError("a symbolic range needs a step of 1", got=step)
    return stop - start


@arange.infer
def _arange_infer(start: Any, stop: Any, step: Any, dtype: DType) -> TensorType:
    return TensorType(dtype, (_arange_count(start, stop, step),))


arange.gradient(lambda b, node, dz: ())


@arange.reference
def _arange_reference(start: Any, stop: Any, step: Any, dtype: DType) -> Any:
    places = np.arange(int(str(_arange_count(start, stop, step))), dtype=np.int64).astype(dtype.numpy)
    return (dtype.numpy.type(start) + places * dtype.numpy.type(step)).astype(dtype.numpy)


@arange.lower
def _arange_lower(k: Any, node: Node, index: Any) -> Scalar:
    dtype = node.attributes["dtype"]
    place = k.s.convert(rules.index_value(k.s, index[0]), dtype)
    start = node.attributes["start"]
    first = k.s.const(start, dtype) if isinstance(start, (int, float)) else k.s.dim(start, dtype)
    return k.s.add(first, k.s.mul(place, node.attributes["step"]))


@operator()
def linspace(start: float, stop: float, num: int, dtype: DType = float32) -> Tensor:
    """`num` numbers evenly spaced from `start` to `stop`, both included."""


@linspace.infer
def _linspace_infer(start: float, stop: float, num: int, dtype: DType) -> TensorType:
    return TensorType(as_dtype(dtype), (num,))


@linspace.expand
def _linspace_expand(b: Any, start: float, stop: float, num: int, dtype: DType) -> Value:
    step = (stop - start) / (num - 1) if num > 1 else 0.0
    places = b.arange(0, num, 1, dtype=dtype)
    result = b.add(b.multiply(places, b.constant(step, dtype)), b.constant(float(start), dtype))
    if num < 2:
        return result
    last = b.equal(places, b.constant(num - 1, dtype))
    return b.where(last, b.constant(float(stop), dtype), result)


@operator()
def eye(rows: int, columns: int | None = None, dtype: DType = float32) -> Tensor:
    """Ones on the diagonal of a matrix, else zeros."""


@eye.infer
def _eye_infer(rows: int, columns: int | None, dtype: DType) -> TensorType:
    return TensorType(as_dtype(dtype), (rows, rows if columns is None else columns))


@eye.expand
def _eye_expand(b: Any, rows: int, columns: int | None, dtype: DType) -> Value:
    return b.one_hot(b.arange(0, rows, 1, dtype=int32), depth=rows if columns is None else columns, dtype=dtype)


zeros.samples = ones.samples = [("", {"shape": (2, 3)}), ("", {"shape": (), "dtype": "int64"})]
full.samples = [("", {"shape": (2, 3), "value": 2.5}), ("", {"shape": (0,), "value": 1, "dtype": "bool"})]
full_like.samples = [("f32[3]", {"value": 2.5})]
arange.samples = [
    ("", {"start": 7}),
    ("", {"start": 1.0, "stop": 4.0, "step": 0.5}),
    ("", {"start": 5, "stop": 0, "step": -2}),
]
linspace.samples = [("", {"start": 0.0, "stop": 1.0, "num": 5}), ("", {"start": 2.0, "stop": 2.0, "num": 1})]
eye.samples = [("", {"rows": 3}), ("", {"rows": 2, "columns": 4, "dtype": "int32"})]
