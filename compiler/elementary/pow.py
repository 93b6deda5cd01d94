"""x to the power y.

|x|^y = e^(y log|x|) with the logarithm in double-double, about 65 good bits, so that its error times y (up to 745) stays below
the last bit of the result. float32 is computed in float64, where a plain logarithm is good enough. Special values follow
IEEE 754-2019 pow.
"""

from __future__ import annotations

import math

from pierian.compiler.dtype import float32, float64
from pierian.compiler.elementary.arithmetic import (
    Pair,
    absolute,
    add,
    any_two_sum,
    both,
    c,
    clamp_above,
    clamp_below,
    either,
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
from pierian.compiler.elementary.log import log
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

# log(m) = 2 s + 2/3 s^3 + s^5 R2(s^2), s = (m - 1) / (m + 1); Chebyshev fit of degree 7, |s| <= 0.2.
R2 = (
    0.39999999999999997, 0.28571428571435653, 0.22222222218511686, 0.1818181892164211, 0.15384543084702873,
    0.13337158338574476, 0.11653266544253921, 0.1219226767349664,
)  # fmt: skip
_LN2 = (0.6931471805599453, 2.3190468138462996e-17)
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def power(x: Scalar, y: Scalar) -> Scalar:
    """x^y: a negative x needs an integer y, else the result is NaN."""
    if is_single(x):
        base = absolute(ir.convert(x, float64))
        magnitude = ir.convert(exp(mul(ir.convert(y, float64), log(base))), float32)
    else:
        magnitude = _magnitude(absolute(x), y)
    return _special(x, y, magnitude)


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
    finite = ir.compare("lt", grown, c(math.inf, y))
    return ir.select(finite, corrected, grown)


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
    zero, one, inf, nan = c(0.0, x), c(1.0, x), c(math.inf, x), c(math.nan, x)
    size = absolute(x)
    y_size = absolute(y)
    is_integer = ir.compare("eq", ir.unary("trunc", y), y)
    half = mul(y, c(0.5, y))
    is_odd = both(is_integer, ir.compare("ne", ir.unary("trunc", half), half))
    y_infinite = ir.compare("eq", y_size, inf)
    is_odd = both(is_odd, ir.compare("ne", y_size, inf))
    is_integer = either(is_integer, y_infinite)
    positive_y = ir.compare("gt", y, zero)
    # |x| is 0 or inf, or |y| is inf: the result is 0 or inf (or 1 where |x| = 1).
    grows = ir.select(ir.compare("gt", size, one), positive_y, ir.unary("not", positive_y))
    extreme = ir.select(grows, inf, zero)
    is_edge = either(either(ir.compare("eq", size, zero), ir.compare("eq", size, inf)), y_infinite)
    result = ir.select(is_edge, extreme, magnitude)
    result = ir.select(both(y_infinite, ir.compare("eq", size, one)), one, result)
    negative = ir.compare("lt", x, zero)
    minus_zero = both(ir.compare("eq", x, zero), ir.compare("lt", _signed_one(x), zero))
    result = ir.select(both(either(negative, minus_zero), is_odd), neg(result), result)
    invalid = both(both(negative, ir.compare("lt", size, inf)), ir.unary("not", is_integer))
    result = ir.select(invalid, nan, result)
    is_nan = either(ir.compare("ne", x, x), ir.compare("ne", y, y))
    result = ir.select(is_nan, nan, result)
    return ir.select(either(ir.compare("eq", y, zero), ir.compare("eq", x, one)), one, result)


def _signed_one(x: Scalar) -> Scalar:
    """One with the sign bit of x."""
    kind = ir.integer_of(x.dtype)
    top = ir.const(-(1 << (x.dtype.bits - 1)), kind)
    sign = ir.binary("and", ir.bitcast(x, kind), top)
    return ir.bitcast(ir.binary("or", sign, ir.bitcast(c(1.0, x), kind)), x.dtype)
