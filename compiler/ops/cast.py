"""Conversion between element types."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.dtype import DType, as_dtype
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType


@operator()
def cast(x: Tensor, dtype: DType) -> Tensor:
    """`x` in another element type.

    Floats become integers by cutting off the fraction; numbers beyond the range become the nearest that fits, NaN
    becomes 0. Anything but 0 becomes true.
    """


@cast.normalize
def _cast_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": as_dtype(attributes["dtype"])}


@cast.infer
def _cast_infer(x: TensorType, dtype: DType) -> TensorType:
    return TensorType(dtype, x.shape)


@cast.gradient
def _cast_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    source = node.inputs[0].dtype
    return (b.cast(dz, dtype=source) if source.is_float else None,)


@cast.reference
def _cast_reference(x: Any, dtype: DType) -> Any:
    if x.dtype.kind == "f" and dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        whole = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
        low, high = float(info.min), float(info.max)
        inside = np.where((whole >= high) | (whole <= low), 0.0, whole).astype(dtype.numpy)
        return np.where(whole >= high, info.max, np.where(whole <= low, info.min, inside)).astype(dtype.numpy)
    with np.errstate(over="ignore"):
        return x.astype(dtype.numpy)


@cast.scalar
def _cast_scalar(s: ScalarBuilder, x: Scalar, dtype: DType) -> Scalar:
    return s.convert(x, dtype)


cast.samples = [
    ("f32[40]", {"dtype": "int32"}), ("f64[7]", {"dtype": "float32"}), ("i32[7]", {"dtype": "float64"}),
    ("f32[7]", {"dtype": "bool"}), ("b[7]", {"dtype": "float32"}), ("i64[7]", {"dtype": "int32"}),
    ("f64[9]", {"dtype": "int64"}),
]  # fmt: skip
