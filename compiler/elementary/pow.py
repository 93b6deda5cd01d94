"""x to the power y.

|x|^y = e^(y log|x|) with the logarithm in double-double, about 65 good bits, so that its error times y (up to 745) stays below
the last bit of the result. float32 is computed in float64 by logarithm and power of 2. Special values follow IEEE 754-2019 pow.
"""

from __future__ import annotations

import math

from pierian.compiler.dtype import float32, float64
from pierian.compiler.elementary.arithmetic import (
    Pair,
    absolute,
    add,
    any_two_sum,
    bits,
    both,
    c,
    clamp_above,
    clamp_below,
    either,
    integer,
    is_finite,
    is_single,
    mul,
    neg,
    pair_product,
    pairwise_polynomial,
    sub,
    two_product,
    two_sum,
)  # fmt: skip
from pierian.compiler.elementary.exp import exp
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

# log(m) = 2 s + 2/3 s^3 + s^5 R2(s^2), s = (m - 1) / (m + 1); Chebyshev fit of degree 7, |s| <= 0.2.
R2 = (
    0.39999999999999997, 0.28571428571435653, 0.22222222218511686, 0.1818181892164211, 0.15384543084702873,
    0.13337158338574476, 0.11653266544253921, 0.1219226767349664,
)  # fmt: skip
_LN2 = (0.6931471805599453, 2.3190468138462996e-17)
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


# log2(1 + f) = f L(f) on [-1/4, 1/2] to 2^-35, and 2^r on [-1/2, 1/2] to 2^-28; Chebyshev fits.
LOG2 = (
    1.4426950409122061, -0.7213475207253306, 0.4808983316417251, -0.36067367232463055, 0.28854054838917603,
    -0.2404575898440573, 0.2060514229808709, -0.18001330082554762, 0.16060315205739292, -0.14927978678373,
    0.13820869488357804, -0.10067562555030282, 0.03709947479105998,
)  # fmt: skip
EXP2 = (
    1.0, 0.6931472067028326, 0.24022650922288757, 0.05550327226670302, 0.009618056678524637, 0.0013400428177615838,
    0.0001546144469856913,
)  # fmt: skip


def power(x: Scalar, y: Scalar) -> Scalar:
    """x^y: a negative x needs an integer y, else the result is NaN."""
    base = absolute(x)
    return _special(x, y, _magnitude_single(base, y) if is_single(x) else _magnitude(base, y))


def _magnitude_single(base: Scalar, y: Scalar) -> Scalar:
    """2^(y log2 |x|) in float64, with as many terms as float32 needs."""
    e, m = (ir.convert(ir.unary(part, base), float64) for part in ("exponent", "fraction"))
    f = sub(m, c(1.0, m))
    logarithm = ir.fma(f, pairwise_polynomial(f, LOG2), e)
    # Beyond these the result is zero or infinite.
    exponent = clamp_below(clamp_above(mul(ir.convert(y, float64), logarithm), 160.0), -160.0)
    start = c(ir.POWERS[float64], exponent)
    whole = add(exponent, start)  # rounded to an integer
    return ir.convert(ir.ldexp(pairwise_polynomial(sub(exponent, sub(whole, start)), EXP2), whole), float32)


def _magnitude(base: Scalar, y: Scalar) -> Scalar:
    high, low = _log_pair(base)
    # Beyond these the result is zero or infinite whatever the rest; keeps inf - inf out of the low part.
    limited = clamp_below(clamp_above(y, 1e300), -1e300)
    product, rest = two_product(limited, high)
    rest = ir.fma(limited, low, rest)
    huge = ir.compare("gt", absolute(product), c(800.0, y))
    rest = ir.select(huge, c(0.0, y), rest)
    grown = exp(product)
    corrected = ir.fma(grown, rest, grown)
    magnitude = ir.select(ir.compare("lt", grown, c(math.inf, y)), corrected, grown)
    # |x| is 0 or inf, or |y| is inf: the result is 0 or inf.
    zero, one, inf = c(0.0, y), c(1.0, y), c(math.inf, y)
    positive = ir.compare("gt", y, zero)
    grows = ir.select(ir.compare("gt", base, one), positive, ir.unary("not", positive))
    is_edge = either(
        either(ir.compare("eq", base, zero), ir.compare("eq", base, inf)), ir.compare("eq", absolute(y), inf)
    )
    return ir.select(is_edge, ir.select(grows, inf, zero), magnitude)


def _log_pair(x: Scalar) -> Pair:
    """log(x) of a positive finite x as a pair."""
    e, m = ir.unary("exponent", x), ir.unary("fraction", x)
    one = c(1.0, x)
    f = sub(m, one)
    total = any_two_sum(m, one)
    high = ir.binary("div", f, total[0])
    left = ir.fma(neg(high), total[0], f)
    left = ir.fma(neg(high), total[1], left)
    s: Pair = two_sum(high, ir.binary("div", left, total[0]))
    square = pair_product(s, s)
    cube = pair_product(square, s)
    third = pair_product(cube, (c(_TWO_THIRDS[0], x), c(_TWO_THIRDS[1], x)))
    tail = mul(mul(cube[0], square[0]), pairwise_polynomial(square[0], R2))
    fraction = two_sum(add(s[0], s[0]), add(s[1], s[1]))
    high, low = any_two_sum(fraction[0], third[0])
    low = add(low, add(add(fraction[1], third[1]), tail))
    whole, carry = two_product(e, c(_LN2[0], x))
    carry = ir.fma(e, c(_LN2[1], x), carry)
    total_high, lost = any_two_sum(whole, high)
    return two_sum(total_high, add(lost, add(carry, low)))


def _special(x: Scalar, y: Scalar, magnitude: Scalar) -> Scalar:
    """The power from that of |x|, which is right for all |x| and y but where |x| is 1, y is 0, or one of them is NaN."""
    zero, one = c(0.0, x), c(1.0, x)
    size = absolute(x)
    is_integer = ir.compare("eq", ir.unary("trunc", y), y)  # infinities too; they are even
    half = mul(y, c(0.5, y))
    is_odd = both(is_integer, ir.compare("ne", ir.unary("trunc", half), half))
    result = ir.select(ir.compare("eq", size, one), one, magnitude)
    signed = ir.bitcast(
        ir.binary("or", bits(result), ir.binary("and", bits(x), integer(x, -(1 << (x.dtype.bits - 1))))), x.dtype
    )
    result = ir.select(is_odd, signed, result)
    valid = either(is_integer, ir.unary("not", both(ir.compare("lt", x, zero), is_finite(x))))
    result = ir.select(valid, result, c(math.nan, x))
    is_nan = either(ir.compare("ne", x, x), ir.compare("ne", y, y))
    result = ir.select(is_nan, c(math.nan, x), result)
    return ir.select(either(ir.compare("eq", y, zero), ir.compare("eq", x, one)), one, result)
