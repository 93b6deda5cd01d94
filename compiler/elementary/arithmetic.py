"""Pieces that several expansions share: polynomials, powers of two, exact sums and products (double-double)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pierian.compiler.dtype import float32
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

Pair = tuple[Scalar, Scalar]  # an unevaluated sum, the second much smaller

MANTISSA = {"float32": 23, "float64": 52}


def c(value: float, like: Scalar) -> Scalar:
    """A constant of another expression's type."""
    return ir.const(value, like.dtype)


def add(x: Scalar, y: Scalar) -> Scalar:
    return ir.binary("add", x, y)


def sub(x: Scalar, y: Scalar) -> Scalar:
    return ir.binary("sub", x, y)


def mul(x: Scalar, y: Scalar) -> Scalar:
    return ir.binary("mul", x, y)


def div(x: Scalar, y: Scalar) -> Scalar:
    return ir.binary("div", x, y)


def neg(x: Scalar) -> Scalar:
    return ir.unary("neg", x)


def absolute(x: Scalar) -> Scalar:
    return ir.unary("abs", x)


def lt(x: Scalar, y: Scalar) -> Scalar:
    return ir.compare("lt", x, y)


def either(x: Scalar, y: Scalar) -> Scalar:
    return ir.binary("or", x, y)


def both(x: Scalar, y: Scalar) -> Scalar:
    return ir.binary("and", x, y)


def is_finite(x: Scalar) -> Scalar:
    """False for infinities and NaN."""
    return lt(absolute(x), c(math.inf, x))


def clamp_above(x: Scalar, limit: float) -> Scalar:
    """The smaller of x and a limit; NaN stays."""
    bound = c(limit, x)
    return ir.select(ir.compare("gt", x, bound), bound, x)


def clamp_below(x: Scalar, limit: float) -> Scalar:
    """The larger of x and a limit; NaN stays."""
    bound = c(limit, x)
    return ir.select(ir.compare("lt", x, bound), bound, x)


def polynomial(x: Scalar, coefficients: Sequence[float]) -> Scalar:
    """c0 + c1 x + c2 x^2 + ... by Horner's rule with fused multiply-adds."""
    return polynomial_of(x, [c(coefficient, x) for coefficient in coefficients])


def polynomial_of(x: Scalar, coefficients: Sequence[Scalar]) -> Scalar:
    """The same with coefficients that are expressions."""
    result = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = ir.fma(result, x, coefficient)
    return result


def pairwise_polynomial(x: Scalar, coefficients: Sequence[float]) -> Scalar:
    """The same polynomial by Estrin's scheme: a shorter chain of dependent operations for long ones."""
    level = [c(coefficient, x) for coefficient in coefficients]
    power = x
    while len(level) > 1:
        paired = [ir.fma(level[i + 1], power, level[i]) for i in range(0, len(level) - 1, 2)]
        level = paired + (level[-1:] if len(level) % 2 else [])
        power = mul(power, power)
    return level[0]


def integer(x: Scalar, value: int) -> Scalar:
    """A constant of the integer type as wide as `x`."""
    return ir.const(value, ir.integer_of(x.dtype))


def bits(x: Scalar) -> Scalar:
    """The bits of a float as an integer."""
    return ir.bitcast(x, ir.integer_of(x.dtype))


def two_sum(x: Scalar, y: Scalar) -> Pair:
    """x + y exactly, |x| >= |y| (Dekker 1971)."""
    total = add(x, y)
    return total, sub(y, sub(total, x))


def any_two_sum(x: Scalar, y: Scalar) -> Pair:
    """x + y exactly, whatever their sizes (Knuth)."""
    total = add(x, y)
    part = sub(total, x)
    return total, add(sub(x, sub(total, part)), sub(y, part))


def two_product(x: Scalar, y: Scalar) -> Pair:
    """x * y exactly, by a fused multiply-add."""
    product = mul(x, y)
    return product, ir.fma(x, y, neg(product))


def pair_product(x: Pair, y: Pair) -> Pair:
    """The product of two pairs, to about twice the precision."""
    high, low = two_product(x[0], y[0])
    low = ir.fma(x[0], y[1], ir.fma(x[1], y[0], low))
    return two_sum(high, low)


def is_single(x: Scalar) -> bool:
    return x.dtype is float32


def copy_sign(magnitude: Scalar, sign: Scalar) -> Scalar:
    """A non-negative magnitude with the sign bit of another number."""
    top = integer(sign, -(1 << (sign.dtype.bits - 1)))
    return ir.bitcast(ir.binary("or", bits(magnitude), ir.binary("and", bits(sign), top)), sign.dtype)
