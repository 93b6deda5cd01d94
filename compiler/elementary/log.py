"""log, log2, log1p.

x = m 2^e with m in [sqrt(1/2), sqrt(2)), f = m - 1. float32: log(m) = f - f^2/2 + f^3 P(f), P a Chebyshev fit of degree 8
(error of the fit below 5e-9 relative). float64: s = f / (2 + f), log(m) = 2 s + s^3 R(s^2) (the form of fdlibm's e_log),
R a Chebyshev fit of degree 6.
"""

from __future__ import annotations

import math

from pierian.compiler.elementary.arithmetic import (
    MANTISSA,
    add,
    bits,
    c,
    div,
    integer,
    is_single,
    mul,
    pairwise_polynomial,
    sub,
)  # fmt: skip
from pierian.compiler.elementary.exp import LN2_32, LN2_64
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

P32 = (
    0.3333333134651184, -0.2499999701976776, 0.20000715553760529, -0.1666780263185501, 0.14249058067798615,
    -0.12425687164068222, 0.11685419827699661, -0.11479733884334564, 0.06971611827611923,
)  # fmt: skip
R64 = (
    0.6666666666666666, 0.39999999999899444, 0.2857142862600327, 0.22222211130259878, 0.18182889455674947,
    0.15331710618210773, 0.14616585424888623,
)  # fmt: skip
_SQRT_HALF_BITS = {"float32": 0x3F3504F3, "float64": 0x3FE6A09E667F3BCD}
_SMALLEST_NORMAL = {"float32": 2.0**-126, "float64": 2.0**-1022}
_LOG2E = 1.4426950408889634


def split(x: Scalar) -> tuple[Scalar, Scalar]:
    """Exponent e as a float and m of x = m 2^e, m in [sqrt(1/2), sqrt(2)); denormals are scaled up first."""
    width = MANTISSA[x.dtype.name]
    small = ir.compare("lt", x, c(_SMALLEST_NORMAL[x.dtype.name], x))
    scaled = ir.select(small, mul(x, c(2.0 ** (width + 1), x)), x)
    shifted = ir.binary("sub", bits(scaled), integer(x, _SQRT_HALF_BITS[x.dtype.name]))
    exponent = ir.binary("ashr", shifted, integer(x, width))
    fraction = ir.binary("and", shifted, integer(x, (1 << width) - 1))
    m = ir.bitcast(ir.binary("add", fraction, integer(x, _SQRT_HALF_BITS[x.dtype.name])), x.dtype)
    e = ir.convert(exponent, x.dtype)
    return ir.select(small, sub(e, c(float(width + 1), x)), e), m


def _special(x: Scalar, result: Scalar) -> Scalar:
    """log at zero, infinity, negative numbers and NaN."""
    result = ir.select(ir.compare("gt", x, c(0.0, x)), result, c(math.nan, x))
    result = ir.select(ir.compare("eq", x, c(0.0, x)), c(-math.inf, x), result)
    return ir.select(ir.compare("eq", x, c(math.inf, x)), x, result)


def _fraction_parts(f: Scalar) -> tuple[Scalar, Scalar]:
    """log(1 + f) as f plus a smaller part."""
    half_square = mul(mul(f, f), c(0.5, f))
    if is_single(f):
        cubic = mul(mul(f, f), f)
        return f, ir.fma(cubic, pairwise_polynomial(f, P32), mul(half_square, c(-1.0, f)))
    s = div(f, add(f, c(2.0, f)))
    z = mul(s, s)
    r = mul(z, pairwise_polynomial(z, R64))
    return f, sub(mul(s, add(half_square, r)), half_square)


def _finish(e: Scalar, f: Scalar, extra: Scalar | None = None) -> Scalar:
    high, low = LN2_32 if is_single(f) else LN2_64
    large, small = _fraction_parts(f)
    small = ir.fma(e, c(low, f), small)
    if extra is not None:
        small = add(small, extra)
    return ir.fma(e, c(high, f), add(large, small))


def log(x: Scalar) -> Scalar:
    """Natural logarithm: NaN for negative numbers, -inf at zero."""
    e, m = split(x)
    return _special(x, _finish(e, sub(m, c(1.0, x))))


def log2(x: Scalar) -> Scalar:
    """Logarithm to base 2; exact at powers of two."""
    e, m = split(x)
    large, small = _fraction_parts(sub(m, c(1.0, x)))
    # log2(e) in two parts: the first exact in a product with the leading bits of log(m).
    high = 1.44269180297851562 if is_single(x) else 1.4426950216293335
    low = _LOG2E - high if is_single(x) else 1.9259629911266175e-08
    natural = add(large, small)
    left = sub(small, sub(natural, large))
    fraction = ir.fma(natural, c(high, x), ir.fma(natural, c(low, x), mul(left, c(_LOG2E, x))))
    return _special(x, add(e, fraction))


def log1p(x: Scalar) -> Scalar:
    """log(1 + x) without cancellation: the rounding error of 1 + x is carried along."""
    one = c(1.0, x)
    u = add(one, x)
    e, m = split(u)
    # Where x is large the lost part is of 1, else of x.
    large = ir.compare("ge", ir.unary("abs", x), one)
    lost = ir.select(large, sub(one, sub(u, x)), sub(x, sub(u, one)))
    result = _finish(e, sub(m, one), div(lost, u))
    result = _special(u, result)
    tiny = ir.compare("lt", ir.unary("abs", x), c(1e-10 if is_single(x) else 1e-20, x))
    return ir.select(tiny, x, result)
