"""Rounding to integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator


@operator(idempotent=True, normalize=rules.refuse_bool, infer=rules.same)
def floor(x: Tensor) -> Tensor:
    """Largest whole number not above `x`. Its gradient is 0."""


@floor.gradient
def _floor_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.zeros_like(dz),)


@floor.reference
def _floor_reference(x: Any) -> Any:
    return np.floor(x).astype(x.dtype)


@floor.scalar
def _floor_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("floor", x) if x.dtype.is_float else x


@operator(idempotent=True, normalize=rules.refuse_bool, infer=rules.same)
def ceil(x: Tensor) -> Tensor:
    """Smallest whole number not below `x`. Its gradient is 0."""


@ceil.gradient
def _ceil_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.zeros_like(dz),)


@ceil.reference
def _ceil_reference(x: Any) -> Any:
    return np.ceil(x).astype(x.dtype)


@ceil.scalar
def _ceil_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("ceil", x) if x.dtype.is_float else x


@operator(idempotent=True, normalize=rules.refuse_bool, infer=rules.same)
def trunc(x: Tensor) -> Tensor:
    """The whole number next to `x` towards 0. Its gradient is 0."""


@trunc.gradient
def _trunc_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.zeros_like(dz),)


@trunc.reference
def _trunc_reference(x: Any) -> Any:
    return np.trunc(x).astype(x.dtype)


@trunc.scalar
def _trunc_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("trunc", x) if x.dtype.is_float else x


@operator(idempotent=True, normalize=rules.refuse_bool, infer=rules.same)
def round(x: Tensor) -> Tensor:
    """The nearest whole number, halves to the even one. Its gradient is 0."""


@round.gradient
def _round_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.zeros_like(dz),)


@round.reference
def _round_reference(x: Any) -> Any:
    return np.rint(x) if x.dtype.kind == "f" else x


@round.scalar
def _round_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("round", x) if x.dtype.is_float else x
