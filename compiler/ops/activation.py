"""Activations and normalizations: compositions. Where a gradient stands here it is better behaved than the derived one."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType, normalize_axis


def _one_axis(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {"axis": normalize_axis(attributes["axis"], types[0].rank)}


@operator(infer=rules.same, normalize=rules.refuse_bool)
def relu(x: Tensor) -> Tensor:
    """`x` where it is positive, else 0; the gradient at 0 is 0."""


@relu.gradient
def _relu_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    y = node.output  # positive where x is; so nothing asks for x again
    return (b.where(b.greater(y, b.constant_like(0, y)), dz, b.zeros_like(dz)),)


@relu.expand
def _relu_expand(b: Any, x: Value) -> Value:
    return b.maximum(x, b.constant_like(0, x))


@operator(infer=rules.same, promote="float")
def leaky_relu(x: Tensor, alpha: float = 0.2) -> Tensor:
    """`x` where it is positive, else `alpha * x`."""


@leaky_relu.expand
def _leaky_relu_expand(b: Any, x: Value, alpha: float) -> Value:
    return b.where(b.greater(x, b.constant_like(0, x)), x, b.multiply(x, b.constant_like(alpha, x)))


@operator(infer=rules.same, promote="float")
def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """`x` where it is positive, else `alpha * (exp(x) - 1)`."""


@elu.expand
def _elu_expand(b: Any, x: Value, alpha: float) -> Value:
    zero = b.constant_like(0, x)
    below = b.multiply(b.expm1(b.minimum(x, zero)), b.constant_like(alpha, x))
    return b.where(b.greater(x, zero), x, below)


@operator(infer=rules.same, promote="float")
def silu(x: Tensor) -> Tensor:
    """`x * sigmoid(x)`."""


@silu.expand
def _silu_expand(b: Any, x: Value) -> Value:
    return b.multiply(x, b.sigmoid(x))


@operator(infer=rules.same, promote="float")
def gelu(x: Tensor, approximate: bool = False) -> Tensor:
    """`x` times the normal distribution function of `x`; with `approximate` its formula by tanh."""


@gelu.expand
def _gelu_expand(b: Any, x: Value, approximate: bool) -> Value:
    half = b.multiply(x, b.constant_like(0.5, x))
    if approximate:
        cubic = b.multiply(b.multiply(b.multiply(x, x), x), b.constant_like(0.044715, x))
        inner = b.multiply(b.add(x, cubic), b.constant_like(0.7978845608028654, x))
        return b.multiply(half, b.add(b.tanh(inner), b.constant_like(1, x)))
    scaled = b.multiply(x, b.constant_like(0.7071067811865476, x))
    return b.multiply(half, b.add(b.erf(scaled), b.constant_like(1, x)))


@gelu.gradient
def _gelu_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    """dz times the slope, which depends on x alone: where x is computed anyway, only the slope has to be kept."""
    (x,) = node.inputs
    half, one = b.constant_like(0.5, x), b.constant_like(1, x)
    if node.attributes["approximate"]:
        square = b.multiply(x, x)
        cubic = b.multiply(b.multiply(square, x), b.constant_like(0.044715, x))
        inner = b.multiply(b.add(x, cubic), b.constant_like(0.7978845608028654, x))
        t = b.tanh(inner)
        steep = b.add(
            b.multiply(square, b.constant_like(0.1070322242840876, x)), b.constant_like(0.7978845608028654, x)
        )
        bend = b.multiply(b.subtract(one, b.multiply(t, t)), steep)
        return (b.multiply(dz, b.multiply(half, b.add(b.add(t, one), b.multiply(x, bend)))),)
    below = b.multiply(half, b.add(b.erf(b.multiply(x, b.constant_like(0.7071067811865476, x))), one))
    density = b.multiply(
        b.exp(b.multiply(b.multiply(x, x), b.constant_like(-0.5, x))), b.constant_like(0.3989422804014327, x)
    )
    return (b.multiply(dz, b.add(below, b.multiply(x, density))),)


@operator(infer=rules.same, promote="float", ulp=2, cost=30)
def softplus(x: Tensor) -> Tensor:
    """`log(1 + exp(x))`, without overflow."""


@softplus.gradient
def _softplus_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.multiply(dz, b.sigmoid(node.inputs[0])),)


@softplus.reference
def _softplus_reference(x: Any) -> Any:
    return rules.quietly(np.logaddexp, x, np.zeros((), x.dtype))


@softplus.scalar
def _softplus_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("softplus", x)


@operator(infer=rules.same, promote="float", normalize=_one_axis)
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """`exp(x)` divided by its sum along `axis`."""


@softmax.gradient
def _softmax_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    y = node.output
    weighted = b.multiply(dz, y)
    total = b.sum(weighted, axis=node.attributes["axis"], keepdims=True)
    return (b.subtract(weighted, b.multiply(y, total)),)


@softmax.expand
def _softmax_expand(b: Any, x: Value, axis: int) -> Value:
    grown = b.exp(b.subtract(x, b.max(x, axis=axis, keepdims=True)))
    total = b.sum(grown, axis=axis, keepdims=True)
    # The sum is 1 or more, so its reciprocal is a normal number: one division for each sum, in place of one for each element.
    return b.multiply(grown, b.divide(b.constant_like(1, total), total))


@operator(infer=rules.same, promote="float", normalize=_one_axis)
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Logarithm of `softmax`, without underflow."""


@log_softmax.gradient
def _log_softmax_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    total = b.sum(dz, axis=node.attributes["axis"], keepdims=True)
    return (b.subtract(dz, b.multiply(b.exp(node.output), total)),)


@log_softmax.expand
def _log_softmax_expand(b: Any, x: Value, axis: int) -> Value:
    shifted = b.subtract(x, b.max(x, axis=axis, keepdims=True))
    return b.subtract(shifted, b.log(b.sum(b.exp(shifted), axis=axis, keepdims=True)))


@operator(promote="common")
def layer_norm(x: Tensor, scale: Tensor, shift: Tensor, epsilon: float = 1e-5) -> Tensor:
    """`x` centered and divided by its standard deviation along the last axis, times `scale` plus `shift`."""


@layer_norm.infer
def _layer_norm_infer(x: TensorType, scale: TensorType, shift: TensorType, epsilon: float) -> TensorType:
    return rules.broadcast(x, scale, shift)


@layer_norm.expand
def _layer_norm_expand(b: Any, x: Value, scale: Value, shift: Value, epsilon: float) -> Value:
    center = b.subtract(x, b.mean(x, axis=-1, keepdims=True))
    variance = b.mean(b.square(center), axis=-1, keepdims=True)
    normal = b.multiply(center, b.rsqrt(b.add(variance, b.constant_like(epsilon, variance))))
    return b.add(b.multiply(normal, scale), shift)


layer_norm.samples = [("f32[3,8] f32[8] f32[8]", {}), ("f64[2,3,5] f64[5] f64[5]", {})]
