"""Arithmetic and rounding, element by element with broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType


@operator(promote="common", commutative=True, infer=rules.broadcast, constraints=rules.equal_after_broadcast)
def add(x: Tensor, y: Tensor) -> Tensor:
    """Sum of `x` and `y`. Integers wrap; of booleans it is the logical or."""


@add.gradient
def _add_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return tuple(rules.unbroadcast(b, dz, value) for value in node.inputs)


@add.reference
def _add_reference(x: Any, y: Any) -> Any:
    return np.add(x, y)


@add.scalar
def _add_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.logical_or(x, y) if x.dtype.is_bool else s.add(x, y)


@operator(promote="common", infer=rules.broadcast, constraints=rules.equal_after_broadcast, normalize=rules.refuse_bool)
def subtract(x: Tensor, y: Tensor) -> Tensor:
    """Difference `x - y`. Integers wrap; booleans are refused."""


@subtract.gradient
def _subtract_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, y = node.inputs
    return rules.unbroadcast(b, dz, x), rules.unbroadcast(b, b.negative(dz), y)


@subtract.reference
def _subtract_reference(x: Any, y: Any) -> Any:
    return np.subtract(x, y)


@subtract.scalar
def _subtract_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.sub(x, y)


@operator(promote="common", commutative=True, infer=rules.broadcast, constraints=rules.equal_after_broadcast)
def multiply(x: Tensor, y: Tensor) -> Tensor:
    """Product of `x` and `y`. Integers wrap; of booleans it is the logical and."""


@multiply.gradient
def _multiply_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, y = node.inputs
    return rules.unbroadcast(b, b.multiply(dz, y), x), rules.unbroadcast(b, b.multiply(dz, x), y)


@multiply.reference
def _multiply_reference(x: Any, y: Any) -> Any:
    return np.multiply(x, y)


@multiply.scalar
def _multiply_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.logical_and(x, y) if x.dtype.is_bool else s.mul(x, y)


@operator(promote="float", cost=4, infer=rules.broadcast, constraints=rules.equal_after_broadcast)
def divide(x: Tensor, y: Tensor) -> Tensor:
    """Quotient `x / y` in floating point; integers are converted first."""


@divide.gradient
def _divide_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, y = node.inputs
    return rules.unbroadcast(b, b.divide(dz, y), x), rules.unbroadcast(
        b, b.negative(b.divide(b.multiply(dz, node.output), y)), y
    )


@divide.reference
def _divide_reference(x: Any, y: Any) -> Any:
    return rules.quietly(np.divide, x, y)


@divide.scalar
def _divide_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.div(x, y)


@operator(
    promote="common",
    cost=5,
    infer=rules.broadcast,
    constraints=rules.equal_after_broadcast,
    normalize=rules.refuse_bool,
)
def floor_divide(x: Tensor, y: Tensor) -> Tensor:
    """Largest whole number not above `x / y`. Integer division by zero gives 0."""


@floor_divide.gradient
def _floor_divide_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return None, None


@floor_divide.reference
def _floor_divide_reference(x: Any, y: Any) -> Any:
    if x.dtype.kind == "i":
        safe = np.where(y == 0, 1, y).astype(y.dtype)
        return np.where(y == 0, 0, rules.quietly(np.floor_divide, x, safe)).astype(x.dtype)
    return np.floor(rules.quietly(np.divide, x, y))


@floor_divide.scalar
def _floor_divide_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.unary("floor", s.div(x, y)) if x.dtype.is_float else s.div(x, y)


@operator(
    promote="common",
    cost=8,
    ulp=None,
    infer=rules.broadcast,
    constraints=rules.equal_after_broadcast,
    normalize=rules.refuse_bool,
)
def remainder(x: Tensor, y: Tensor) -> Tensor:
    """`x - floor(x / y) * y`, with the sign of `y`; of integers by zero it is `x`."""


@remainder.gradient
def _remainder_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, y = node.inputs
    return rules.unbroadcast(b, dz, x), rules.unbroadcast(b, b.negative(b.multiply(dz, b.floor(b.divide(x, y)))), y)


@remainder.reference
def _remainder_reference(x: Any, y: Any) -> Any:
    if x.dtype.kind == "i":
        safe = np.where(y == 0, 1, y).astype(y.dtype)
        return np.where(y == 0, x, rules.quietly(np.remainder, x, safe)).astype(x.dtype)
    return rules.quietly(np.remainder, x, y)


@remainder.scalar
def _remainder_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    if not x.dtype.is_float:
        return s.sub(x, s.mul(s.div(x, y), y))
    # fmod by division is inexact for large quotients; one fused step repairs the rounding of the product.
    quotient = s.unary("floor", s.div(x, y))
    rest = s.fma(s.neg(quotient), y, x)
    wrong = s.logical_and(s.compare("ne", rest, 0.0), ir.compare("ne", s.lt(rest, 0.0), s.lt(y, 0.0)))
    rest = s.select(wrong, s.add(rest, y), rest)
    endless = s.eq(s.unary("abs", y), float("inf"))
    opposite = ir.compare("ne", s.lt(x, 0.0), s.lt(y, 0.0))
    away = s.logical_and(opposite, s.compare("ne", x, 0.0))
    bounded = s.select(away, y, x)
    finite = s.lt(s.unary("abs", x), float("inf"))
    return s.select(s.logical_and(endless, finite), bounded, rest)


@operator(
    promote="common", idempotent=True, commutative=True, infer=rules.broadcast, constraints=rules.equal_after_broadcast
)
def minimum(x: Tensor, y: Tensor) -> Tensor:
    """The smaller of `x` and `y`, element by element; NaN where either is NaN. The gradient goes to `x` in a tie."""


@minimum.gradient
def _minimum_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, y = node.inputs
    first = b.less_equal(x, y)
    zero = b.zeros_like(dz)
    return rules.unbroadcast(b, b.where(first, dz, zero), x), rules.unbroadcast(b, b.where(first, zero, dz), y)


@minimum.reference
def _minimum_reference(x: Any, y: Any) -> Any:
    return np.minimum(x, y)


@minimum.scalar
def _minimum_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.logical_and(x, y) if x.dtype.is_bool else s.min(x, y)


@operator(
    promote="common", idempotent=True, commutative=True, infer=rules.broadcast, constraints=rules.equal_after_broadcast
)
def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The larger of `x` and `y`, element by element; NaN where either is NaN. The gradient goes to `x` in a tie."""


@maximum.gradient
def _maximum_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, y = node.inputs
    first = b.greater_equal(x, y)
    zero = b.zeros_like(dz)
    return rules.unbroadcast(b, b.where(first, dz, zero), x), rules.unbroadcast(b, b.where(first, zero, dz), y)


@maximum.reference
def _maximum_reference(x: Any, y: Any) -> Any:
    return np.maximum(x, y)


@maximum.scalar
def _maximum_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.logical_or(x, y) if x.dtype.is_bool else s.max(x, y)


@operator(
    promote="common",
    ulp=4,
    cost=60,
    infer=rules.broadcast,
    constraints=rules.equal_after_broadcast,
    normalize=rules.refuse_bool,
)
def pow(x: Tensor, y: Tensor) -> Tensor:
    """`x` to the power `y`. Of a negative `x` only integer powers exist, others are NaN.

    Integers wrap, and a negative integer power of an integer gives 0 unless `x` is 1 or -1.
    """


@pow.gradient
def _pow_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x, y = node.inputs
    one = b.ones_like(y)
    dx = b.multiply(dz, b.multiply(y, b.pow(x, b.subtract(y, one))))
    positive = b.greater(x, b.zeros_like(x))
    safe = b.where(positive, x, b.ones_like(x))
    dy = b.where(positive, b.multiply(dz, b.multiply(node.output, b.log(safe))), b.zeros_like(dz))
    return rules.unbroadcast(b, dx, x), rules.unbroadcast(b, dy, y)


@pow.reference
def _pow_reference(x: Any, y: Any) -> Any:
    if x.dtype.kind != "i":
        return rules.quietly(np.power, x, y)
    whole = rules.quietly(np.power, x, np.maximum(y, 0))
    odd = np.where(y % 2 == 0, 1, x)
    return np.where(y >= 0, whole, np.where(x == 1, 1, np.where(x == -1, odd, 0))).astype(x.dtype)


@pow.scalar
def _pow_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.binary("pow", x, y) if x.dtype.is_float else rules.integer_power(s, x, y)


@operator(normalize=rules.refuse_bool, infer=rules.same)
def negative(x: Tensor) -> Tensor:
    """`-x`; booleans are refused."""


@negative.gradient
def _negative_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.negative(dz),)


@negative.reference
def _negative_reference(x: Any) -> Any:
    return np.negative(x)


@negative.scalar
def _negative_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.neg(x)


@operator(normalize=rules.refuse_bool, idempotent=True, infer=rules.same)
def abs(x: Tensor) -> Tensor:
    """Absolute value. The gradient at 0 is 0."""


@abs.gradient
def _abs_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.multiply(dz, b.sign(node.inputs[0])),)


@abs.reference
def _abs_reference(x: Any) -> Any:
    return np.abs(x)


@abs.scalar
def _abs_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("abs", x)


@operator(normalize=rules.refuse_bool, infer=rules.same)
def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1 by the sign of `x`; NaN stays NaN. Its gradient is 0."""


@sign.gradient
def _sign_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.zeros_like(dz),)


@sign.reference
def _sign_reference(x: Any) -> Any:
    return np.sign(x)


@sign.scalar
def _sign_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return _signed(s, x)


def _signed(s: ScalarBuilder, x: Scalar) -> Scalar:
    negative = s.select(s.lt(x, 0), s.const(-1, x.dtype), s.const(0, x.dtype))
    result = s.select(s.compare("gt", x, 0), s.const(1, x.dtype), negative)
    return s.select(s.compare("ne", x, x), x, result) if x.dtype.is_float else result


@operator(normalize=rules.refuse_bool, infer=rules.same)
def square(x: Tensor) -> Tensor:
    """`x * x`."""


@square.gradient
def _square_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.multiply(dz, b.multiply(node.inputs[0], b.constant_like(2, dz))),)


@square.reference
def _square_reference(x: Any) -> Any:
    return np.multiply(x, x)


@square.scalar
def _square_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.mul(x, x)


@operator(promote="float", cost=4, infer=rules.same)
def sqrt(x: Tensor) -> Tensor:
    """Square root; NaN for negative numbers. The gradient at 0 is infinite."""


@sqrt.gradient
def _sqrt_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.divide(b.multiply(dz, b.constant_like(0.5, dz)), node.output),)


@sqrt.reference
def _sqrt_reference(x: Any) -> Any:
    return rules.quietly(np.sqrt, x)


@sqrt.scalar
def _sqrt_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("sqrt", x)


@operator(promote="float", ulp=2, cost=8, infer=rules.same)
def rsqrt(x: Tensor) -> Tensor:
    """`1 / sqrt(x)`."""


@rsqrt.gradient
def _rsqrt_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    y = node.output
    cube = b.multiply(b.multiply(y, y), y)
    return (b.multiply(b.multiply(dz, b.constant_like(-0.5, dz)), cube),)


@rsqrt.reference
def _rsqrt_reference(x: Any) -> Any:
    return rules.quietly(lambda v: np.divide(np.ones((), v.dtype), np.sqrt(v)), x)


@rsqrt.scalar
def _rsqrt_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("rsqrt", x)


@operator(promote="float", cost=4, infer=rules.same)
def reciprocal(x: Tensor) -> Tensor:
    """`1 / x`."""


@reciprocal.gradient
def _reciprocal_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.negative(b.multiply(dz, b.square(node.output))),)


@reciprocal.reference
def _reciprocal_reference(x: Any) -> Any:
    return rules.quietly(lambda v: np.divide(np.ones((), v.dtype), v), x)


@reciprocal.scalar
def _reciprocal_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.div(s.const(1, x.dtype), x)


@operator(infer=rules.same)
def stop_gradient(x: Tensor) -> Tensor:
    """`x` itself, treated as a constant by differentiation."""


@stop_gradient.gradient
def _stop_gradient_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (None,)


@stop_gradient.reference
def _stop_gradient_reference(x: Any) -> Any:
    return x


@stop_gradient.index_map
def _stop_gradient_index_map(index: Any, x: TensorType) -> Any:
    return index


@operator(promote="common")
def clip(x: Tensor, minimum: Tensor, maximum: Tensor) -> Tensor:
    """`x` limited to the range from `minimum` to `maximum`."""


@clip.infer
def _clip_infer(x: TensorType, minimum: TensorType, maximum: TensorType) -> TensorType:
    return rules.broadcast(x, minimum, maximum)


@clip.expand
def _clip_expand(b: Any, x: Value, minimum: Value, maximum: Value) -> Value:
    return b.minimum(b.maximum(x, minimum), maximum)


@operator(promote="common", normalize=rules.refuse_bool)
def squared_difference(x: Tensor, y: Tensor) -> Tensor:
    """`(x - y)` squared."""


@squared_difference.infer
def _squared_difference_infer(x: TensorType, y: TensorType) -> TensorType:
    return rules.broadcast(x, y)


@squared_difference.expand
def _squared_difference_expand(b: Any, x: Value, y: Value) -> Value:
    return b.square(b.subtract(x, y))
