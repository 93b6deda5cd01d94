"""tanh and sigmoid.

tanh in float32 has two forms. `TANH` picks coefficients from tables of sixteen, for machines that do so in an instruction or two.
Others compute it from powers: with |x| = n ln(2)/2 + r and u = tanh r it is (2^n - 1 + u (2^n + 1)) / (2^n + 1 + u (2^n - 1)). What
rounding takes from u, both sums and the quotient is added in the end.
"""

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
from pierian.compiler.elementary.exp import C32, LOG2E, exp, expm1, power_of_two, reduce
from pierian.compiler.elementary.piecewise import TANH
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

# tanh r = r + r^3 C(r^2) for |r| <= 0.1794, to 1e-9.
TANH_C32 = (-0.33333319425582886, 0.13330978155136108, -0.05270366743206978)


def tanh(x: Scalar) -> Scalar:
    """Hyperbolic tangent."""
    return TANH(x) if is_single(x) else _tanh_double(x)


def tanh_by_powers(x: Scalar) -> Scalar:
    """Hyperbolic tangent without tables."""
    return _tanh_single(x) if is_single(x) else _tanh_double(x)


def _tanh_single(x: Scalar) -> Scalar:
    one = c(1.0, x)
    magnitude = clamp_above(absolute(x), 9.5)  # from 9.02 on the result is 1
    start = c(1.5 * 2.0**23 + 127, x)
    # A little less is rounded: so r is above -0.1674, and with n = 1 the numerator above 1/2: its difference from 1 is exact.
    place = ir.fma(sub(magnitude, c(0.006, x)), c(2 * LOG2E, x), start)
    r = ir.fma(sub(place, start), c(-0.34657359027997264, x), magnitude)  # exact: a multiple of 2^-25
    power = power_of_two(place)
    square = mul(r, r)
    slope = mul(square, polynomial(square, TANH_C32))
    u = ir.fma(r, slope, r)
    u_lost = ir.fma(r, slope, sub(r, u))
    less, more = sub(power, one), add(power, one)
    above, below = ir.fma(u, more, less), ir.fma(u, less, more)
    above_lost, below_lost = ir.fma(u, more, sub(less, above)), ir.fma(u, less, sub(more, below))
    reciprocal = div(one, below)
    quotient = mul(above, reciprocal)
    # From 2^24 on the powers are too large to hold a one: where the result is nearly 1, its numerator is that much larger.
    ones = sub(sub(more, less), c(2.0, x))
    left = add(ir.fma(neg(quotient), below, above), add(above_lost, ones))
    left = ir.fma(neg(quotient), below_lost, left)
    return copy_sign(add(quotient, ir.fma(left, reciprocal, u_lost)), x)


def _tanh_double(x: Scalar) -> Scalar:
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
    n, _, r = reduce(clamp_below(clamp_above(x, 60.0), -104.0))
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
