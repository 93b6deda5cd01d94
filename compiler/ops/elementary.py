"""Elementary functions of real numbers, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator


@operator(promote="float", ulp=2, cost=14, infer=rules.same)
def exp(x: Tensor) -> Tensor:
    """e raised to `x`."""


@exp.gradient
def _exp_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.multiply(dz, node.output),)


@exp.reference
def _exp_reference(x: Any) -> Any:
    return rules.quietly(np.exp, x)


@exp.scalar
def _exp_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("exp", x)


@operator(promote="float", ulp=2, cost=16, infer=rules.same)
def expm1(x: Tensor) -> Tensor:
    """`exp(x) - 1`, accurate near 0."""


@expm1.gradient
def _expm1_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.multiply(dz, b.add(node.output, b.constant_like(1, dz))),)


@expm1.reference
def _expm1_reference(x: Any) -> Any:
    return rules.quietly(np.expm1, x)


@expm1.scalar
def _expm1_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("expm1", x)


@operator(promote="float", ulp=2, cost=22, infer=rules.same)
def log(x: Tensor) -> Tensor:
    """Natural logarithm; -inf at 0, NaN for negative numbers."""


@log.gradient
def _log_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.divide(dz, node.inputs[0]),)


@log.reference
def _log_reference(x: Any) -> Any:
    return rules.quietly(np.log, x)


@log.scalar
def _log_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("log", x)


@operator(promote="float", ulp=2, cost=28, infer=rules.same)
def log1p(x: Tensor) -> Tensor:
    """`log(1 + x)`, accurate near 0."""


@log1p.gradient
def _log1p_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.divide(dz, b.add(node.inputs[0], b.constant_like(1, dz))),)


@log1p.reference
def _log1p_reference(x: Any) -> Any:
    return rules.quietly(np.log1p, x)


@log1p.scalar
def _log1p_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("log1p", x)


@operator(promote="float", ulp=2, cost=24, infer=rules.same)
def log2(x: Tensor) -> Tensor:
    """Logarithm to base 2."""


@log2.gradient
def _log2_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.divide(dz, b.multiply(node.inputs[0], b.constant_like(0.6931471805599453, dz))),)


@log2.reference
def _log2_reference(x: Any) -> Any:
    return rules.quietly(np.log2, x)


@log2.scalar
def _log2_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("log2", x)


@operator(promote="float", ulp=2, cost=60, infer=rules.same)
def sin(x: Tensor) -> Tensor:
    """Sine of an angle in radians."""


@sin.gradient
def _sin_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.multiply(dz, b.cos(node.inputs[0])),)


@sin.reference
def _sin_reference(x: Any) -> Any:
    return rules.quietly(np.sin, x)


@sin.scalar
def _sin_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("sin", x)


@operator(promote="float", ulp=2, cost=60, infer=rules.same)
def cos(x: Tensor) -> Tensor:
    """Cosine of an angle in radians."""


@cos.gradient
def _cos_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.negative(b.multiply(dz, b.sin(node.inputs[0]))),)


@cos.reference
def _cos_reference(x: Any) -> Any:
    return rules.quietly(np.cos, x)


@cos.scalar
def _cos_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("cos", x)


@operator(promote="float", ulp=2, cost=24, infer=rules.same)
def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""


@tanh.gradient
def _tanh_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    y = node.output
    return (b.multiply(dz, b.subtract(b.constant_like(1, dz), b.multiply(y, y))),)


@tanh.reference
def _tanh_reference(x: Any) -> Any:
    return rules.quietly(np.tanh, x)


@tanh.scalar
def _tanh_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("tanh", x)


@operator(promote="float", ulp=2, cost=22, infer=rules.same)
def sigmoid(x: Tensor) -> Tensor:
    """Logistic function `1 / (1 + exp(-x))`."""


@sigmoid.gradient
def _sigmoid_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    y = node.output
    return (b.multiply(dz, b.multiply(y, b.subtract(b.constant_like(1, dz), y))),)


@sigmoid.reference
def _sigmoid_reference(x: Any) -> Any:
    return rules.quietly(_sigmoid, x)


@sigmoid.scalar
def _sigmoid_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("sigmoid", x)


@operator(promote="float", ulp=2, cost=40, infer=rules.same)
def erf(x: Tensor) -> Tensor:
    """Error function."""


@erf.gradient
def _erf_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x = node.inputs[0]
    slope = b.exp(b.negative(b.square(x)))
    return (b.multiply(dz, b.multiply(slope, b.constant_like(1.1283791670955126, dz))),)


@erf.reference
def _erf_reference(x: Any) -> Any:
    return _erf(x)


@erf.scalar
def _erf_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("erf", x)


def _sigmoid(x: Any) -> Any:
    shrunk = np.exp(-np.abs(x))
    return np.where(x < 0, shrunk, np.ones((), x.dtype)) / (np.ones((), x.dtype) + shrunk)


def _erf(x: Any) -> Any:
    import math

    return np.array([math.erf(one) for one in np.ravel(x)], np.float64).reshape(np.shape(x)).astype(x.dtype)
