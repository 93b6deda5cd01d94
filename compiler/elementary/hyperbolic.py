"""tanh and sigmoid."""

from __future__ import annotations

from pierian.compiler.elementary.arithmetic import (
    absolute,
    add,
    c,
    clamp_above,
    clamp_below,
    copy_sign,
    div,
    is_single,
    lt,
    mul,
    neg,
    polynomial,
    sub,
)  # fmt: skip
from pierian.compiler.elementary.exp import C32, exp, expm1, reduce
from pierian.compiler.elementary.piecewise import TANH
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar


def tanh(x: Scalar) -> Scalar:
    """Hyperbolic tangent."""
    if is_single(x):
        return TANH(x)
    magnitude = absolute(x)
    limited = clamp_above(magnitude, 22.0)
    grown = expm1(add(limited, limited))
    return copy_sign(div(grown, add(grown, c(2.0, x))), x)


def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + e^-x)."""
    return _sigmoid_single(x) if is_single(x) else _sigmoid_double(x)


def _sigmoid_single(x: Scalar) -> Scalar:
    """With x = n ln 2 + r it is 2^n / (2^n + e^-r).

    What rounding takes from the sum of 2^n, 1 and e^-r - 1 is kept, and corrects the quotient together with what the division
    rounds off.
    """
    one = c(1.0, x)
    # From 60 on the result is 1, and below -104 it is 0.
    n, r = reduce(clamp_below(clamp_above(x, 60.0), -104.0))
    power = ir.ldexp(one, n)
    slope = polynomial(r, [-1.0, *(value * (-1) ** at for at, value in enumerate(C32))])
    whole = add(one, power)
    total = ir.fma(r, slope, whole)
    lost = ir.fma(r, slope, sub(whole, total))
    lost = add(lost, sub(power, sub(whole, one)))
    quotient = div(one, total)
    left = ir.fma(neg(quotient), lost, ir.fma(neg(quotient), total, one))
    return ir.ldexp(ir.fma(left, quotient, quotient), n)


def _sigmoid_double(x: Scalar) -> Scalar:
    """Computed from e = e^-|x| so that the small side keeps its precision.

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
