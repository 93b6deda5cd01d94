"""exp, decay, exp2, expm1.

Reduction: x = n ln 2 + r with |r| <= ln(2)/2 and ln 2 in two parts (Cody and Waite), then e^r = 1 + r + r^2 q(r). The
polynomials are minimax fits on |r| <= 0.34662; relative error of the fit below 4e-9 in float32, 2e-17 in float64.
"""

from __future__ import annotations

from pierian.compiler.elementary.arithmetic import (
    MANTISSA,
    absolute,
    add,
    bits,
    c,
    clamp_above,
    clamp_below,
    copy_sign,
    integer,
    is_single,
    mul,
    pairwise_polynomial,
    polynomial,
    sub,
)  # fmt: skip
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

LOG2E = 1.4426950408889634
# float32: e^r = 1 + r (1 + r C(r)).
C32 = (0.4999999403953552, 0.1666652113199234, 0.04166826233267784, 0.008368670009076595, 0.0013820977183058858)
# The same with a term more, for where its error is not made smaller by an addition.
LONG_C32 = (
    0.5,
    0.1666666567325592,
    0.041666463017463684,
    0.008333570323884487,
    0.0013935079332441092,
    0.00019740239076782018,
)
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


def reduce(x: Scalar, unit: float = 0.0) -> tuple[Scalar, Scalar, Scalar]:
    """n as a float and r of x = n ln 2 + r; before them n as `ldexp` wants it, or added to another `unit` that rounds."""
    high, low = LN2_32 if is_single(x) else LN2_64
    start = c(unit or ir.POWERS[x.dtype], x)
    power = ir.fma(x, c(LOG2E, x), start)  # rounded to an integer in the same step as the product
    n = sub(power, start)
    r = ir.fma(n, c(-high, x), x)
    return power, n, ir.fma(n, c(-low, x), r)


def _grown(r: Scalar, scale: float = 1.0) -> Scalar:
    """e^r for a reduced argument, times a power of two."""
    if is_single(r):
        return polynomial(r, [scale * coefficient for coefficient in (1.0, 1.0, *C32)])
    whole = [scale * coefficient for coefficient in Q64]
    first = r if scale == 1.0 else mul(r, c(scale, r))
    return add(ir.fma(mul(r, r), pairwise_polynomial(r, whole), first), c(scale, r))


def power_of_two(rounded: Scalar) -> Scalar:
    """2^n of a sum whose last bits are n and the bias of exponents, as 1.5 times the unit of the last place leaves them."""
    return ir.bitcast(ir.binary("shl", bits(rounded), integer(rounded, MANTISSA[rounded.dtype.name])), rounded.dtype)


def exp(x: Scalar) -> Scalar:
    """e^x."""
    low, high = RANGE[x.dtype.name]
    power, _, r = reduce(clamp_below(clamp_above(x, high), low))
    return ir.ldexp(_grown(r), power)


def decay(x: Scalar) -> Scalar:
    """e^x for x up to zero. Exponents have room above: with 2^-s e^r in place of e^r, the power 2^(n + s) is a normal number for
    all n. One shift makes it of the sum that rounds, and one product rounds once, into the denormals too."""
    low, _ = RANGE[x.dtype.name]
    mantissa, bias, raised = MANTISSA[x.dtype.name], *((127, 32) if is_single(x) else (1023, 64))
    sum_, _, r = reduce(clamp_below(x, low), 1.5 * 2.0**mantissa + bias + raised)
    return mul(_grown(r, 2.0**-raised), power_of_two(sum_))


def exp2(x: Scalar) -> Scalar:
    """2^x; the fraction of x is exact."""
    low, high = RANGE2[x.dtype.name]
    x = clamp_below(clamp_above(x, high), low)
    start = c(ir.POWERS[x.dtype], x)
    power = add(x, start)  # rounded to an integer
    r = mul(sub(x, sub(power, start)), c(0.6931471805599453, x))
    return ir.ldexp(_grown(r), power)


def expm1(x: Scalar) -> Scalar:
    """e^x - 1 without cancellation: 2^n (e^r - 1) + (2^n - 1), halved on the way so that 2^n does not overflow. The result has the
    sign of x, zeros included."""
    least, most = (-30.0, 89.0) if is_single(x) else (-60.0, 710.0)
    half_one = c(0.5, x)
    limited = clamp_below(clamp_above(x, most), least)
    power, n, r = reduce(limited)
    half = ir.ldexp(half_one, power)
    start = sub(half, half_one)
    # The sum of the two large parts is kept in two; the small part goes into the second.
    high, low = LN2_32 if is_single(x) else LN2_64
    first = ir.fma(n, c(-high, x), limited)
    tail = polynomial(r, LONG_C32) if is_single(r) else pairwise_polynomial(r, Q64)
    rest = ir.fma(mul(r, r), tail, mul(n, c(-low, x)))
    total = ir.fma(half, first, start)
    lost = ir.fma(half, first, sub(start, total))
    lost = add(lost, sub(sub(half, start), half_one))
    scaled = add(total, ir.fma(half, rest, lost))
    return copy_sign(absolute(add(scaled, scaled)), x)
