"""exp, exp2, expm1.

Reduction: x = n ln 2 + r with |r| <= ln(2)/2 and ln 2 in two parts (Cody and Waite), then e^r = 1 + r + r^2 q(r). The
polynomials are Chebyshev fits on |r| <= 0.34661; relative error of the fit below 8e-9 in float32, 2e-17 in float64.
"""

from __future__ import annotations

from pierian.compiler.elementary.arithmetic import (
    MANTISSA,
    Pair,
    add,
    c,
    clamp_above,
    clamp_below,
    is_single,
    mul,
    pairwise_polynomial,
    polynomial,
    sub,
)  # fmt: skip
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

LOG2E = 1.4426950408889634
Q32 = (0.5, 0.16666576266288757, 0.041666556149721146, 0.008363178931176662, 0.0013926184037700295)
Q64 = (
    0.5, 0.16666666666666669, 0.04166666666662413, 0.008333333333330062, 0.0013888888917213717,
    0.00019841269863053618, 2.4801521295954376e-05, 2.7557268459997064e-06, 2.7620088445409746e-07,
    2.510038549551032e-08,
)  # fmt: skip
# ln 2 with a first part short enough that its product with any exponent is exact.
LN2_32 = (0.693145751953125, 1.4286068203094173e-06)
LN2_64 = (0.6931471805598903, 5.497923018708371e-14)
# Below the first limit the result is zero, above the second infinite.
RANGE = {"float32": (-104.0, 89.0), "float64": (-746.0, 710.0)}
RANGE2 = {"float32": (-151.0, 129.0), "float64": (-1076.0, 1025.0)}


def reduce(x: Scalar) -> Pair:
    """n as a float and r of x = n ln 2 + r."""
    high, low = LN2_32 if is_single(x) else LN2_64
    # Adding 1.5 times the unit of the mantissa's last place rounds to an integer, in the same step as the product.
    unit = c(1.5 * 2.0 ** MANTISSA[x.dtype.name], x)
    n = sub(ir.fma(x, c(LOG2E, x), unit), unit)
    r = ir.fma(n, c(-high, x), x)
    return n, ir.fma(n, c(-low, x), r)


def minus_one(r: Scalar) -> Scalar:
    """e^r - 1 for a reduced argument: r + r^2 q(r)."""
    q = polynomial(r, Q32) if is_single(r) else pairwise_polynomial(r, Q64)
    return ir.fma(mul(r, r), q, r)


def exp(x: Scalar) -> Scalar:
    """e^x."""
    low, high = RANGE[x.dtype.name]
    n, r = reduce(clamp_below(clamp_above(x, high), low))
    return ir.ldexp(add(minus_one(r), c(1.0, x)), n)


def exp_moderate(x: Scalar) -> Scalar:
    """e^x for arguments within `RANGE`; two operations fewer."""
    n, r = reduce(x)
    return ir.ldexp(add(minus_one(r), c(1.0, x)), n)


def exp2(x: Scalar) -> Scalar:
    """2^x; the fraction of x is exact."""
    low, high = RANGE2[x.dtype.name]
    x = clamp_below(clamp_above(x, high), low)
    n = ir.unary("round", x)
    r = mul(sub(x, n), c(0.6931471805599453, x))
    return ir.ldexp(add(minus_one(r), c(1.0, x)), n)


def expm1(x: Scalar) -> Scalar:
    """e^x - 1 without cancellation: 2^n (e^r - 1) + (2^n - 1), halved on the way so that 2^n does not overflow."""
    low, high = (-30.0, 89.0) if is_single(x) else (-60.0, 710.0)
    n, r = reduce(clamp_below(clamp_above(x, high), low))
    half = ir.ldexp(c(0.5, x), n)
    p = minus_one(r)
    scaled = ir.fma(half, p, sub(half, c(0.5, x)))
    result = add(scaled, scaled)
    # x itself where it is so small that the result is x: keeps the sign of zero.
    tiny = ir.compare("lt", ir.unary("abs", x), c(1e-10 if is_single(x) else 1e-20, x))
    return ir.select(tiny, x, result)
