"""tanh and sigmoid."""

from __future__ import annotations

from pierian.compiler.elementary.arithmetic import (
    absolute,
    add,
    bits,
    c,
    clamp_above,
    div,
    integer,
    is_single,
    lt,
    mul,
    neg,
    polynomial,
    sub,
)  # fmt: skip
from pierian.compiler.elementary.exp import exp, exp_moderate, expm1
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

# tanh(x) = x + x^3 P(x^2) for |x| <= 0.625; Chebyshev fit, relative error below 2e-8.
TANH32 = (-0.333333283662796, 0.1333276927471161, -0.05385087803006172, 0.020997030660510063, -0.006096498109400272)
_SMALL = 0.625


def tanh(x: Scalar) -> Scalar:
    """Hyperbolic tangent."""
    magnitude = absolute(x)
    one, two = c(1.0, x), c(2.0, x)
    if is_single(x):
        square = mul(x, x)
        small = ir.fma(mul(square, magnitude), polynomial(square, TANH32), magnitude)
        limited = clamp_above(magnitude, 10.0)
        grown = exp_moderate(add(limited, limited))
        large = sub(one, div(two, add(grown, one)))
        result = ir.select(lt(magnitude, c(_SMALL, x)), small, large)
    else:
        limited = clamp_above(magnitude, 22.0)
        grown = expm1(add(limited, limited))
        result = div(grown, add(grown, two))
    return copy_sign(result, x)


def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + e^-x), computed from e = e^-|x| so that the small side keeps its precision.

    The quotient by 1 + e is corrected by what was rounded off in the sum and in the division.
    """
    one = c(1.0, x)
    shrunk = exp(neg(absolute(x)))
    numerator = ir.select(lt(x, c(0.0, x)), shrunk, one)
    total = add(one, shrunk)
    lost = sub(shrunk, sub(total, one))
    reciprocal = div(one, total)
    quotient = mul(numerator, reciprocal)
    left = ir.fma(neg(quotient), lost, ir.fma(neg(quotient), total, numerator))
    return ir.fma(left, reciprocal, quotient)


def copy_sign(magnitude: Scalar, sign: Scalar) -> Scalar:
    """A non-negative magnitude with the sign bit of another number."""
    top = integer(sign, -(1 << (sign.dtype.bits - 1)))
    return ir.bitcast(ir.binary("or", bits(magnitude), ir.binary("and", bits(sign), top)), sign.dtype)
