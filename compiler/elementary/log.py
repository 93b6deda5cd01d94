"""log, log2, log1p.

x = m 2^e with m in [3/4, 3/2), f = m - 1; e is infinite or m is NaN where the logarithm is. float32: log(m) = f - f^2/2 + f^3 P(f),
P a minimax fit of degree 8 (error below 1e-9 relative to the logarithm). float64: s = f / (2 + f), log(m) = 2 s + s^3 R(s^2) (the
form of fdlibm's e_log), R a Chebyshev fit of degree 7.
"""

from __future__ import annotations

from pierian.compiler.elementary.arithmetic import (
    absolute,
    add,
    c,
    copy_sign,
    div,
    is_finite,
    is_single,
    mul,
    pairwise_polynomial,
    sub,
    two_product,
    two_sum,
)  # fmt: skip
from pierian.compiler.elementary.exp import LN2_32, LN2_64
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

P32 = (
    0.33333340287208557, -0.2500016689300537, 0.1999957263469696, -0.16655197739601135, 0.14276878535747528,
    -0.1272999495267868, 0.11697715520858765, -0.09099555015563965, 0.03752291947603226,
)  # fmt: skip
R64 = (
    0.6666666666666666, 0.4000000000000781, 0.285714285673329, 0.22222223038856737, 0.18181738372176318,
    0.15388837982487366, 0.13210295347053236, 0.13604517062720323,
)  # fmt: skip
_LOG2E = 1.4426950408889634


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
    return _finish(ir.unary("exponent", x), sub(ir.unary("fraction", x), c(1.0, x)))


def log2(x: Scalar) -> Scalar:
    """Logarithm to base 2; exact at powers of two."""
    e = ir.unary("exponent", x)
    large, small = _fraction_parts(sub(ir.unary("fraction", x), c(1.0, x)))
    natural = add(large, small)
    left = sub(small, sub(natural, large))
    # e + natural log2(e), and what rounding takes from it: where e is -1, most of the sum cancels.
    high = 1.4426950216293335 if is_single(x) else _LOG2E
    low = 1.9259629911266175e-08 if is_single(x) else 2.0355273740931033e-17
    part, rest = two_product(natural, c(high, x))
    total, lost = two_sum(e, part)
    rest = ir.fma(natural, c(low, x), ir.fma(left, c(high, x), rest))
    return ir.select(is_finite(e), add(total, add(lost, rest)), e)


def log1p(x: Scalar) -> Scalar:
    """log(1 + x) without cancellation: with 1 + x = (1 + f) 2^e, f is computed from x itself, x 2^-e + (2^-e - 1), and what rounding
    takes from it is added in the end. The result has the sign of x, zeros included."""
    one = c(1.0, x)
    u = add(one, x)
    e = ir.unary("exponent", u)
    shrink = ir.ldexp(one, sub(c(ir.POWERS[x.dtype], x), e))
    start = sub(shrink, one)
    f = ir.fma(x, shrink, start)
    lost = ir.fma(x, shrink, sub(start, f))
    result = _finish(e, f, lost)
    # At -1 and at infinity e is infinite, and the result is e.
    result = ir.select(is_finite(e), result, e)
    return copy_sign(absolute(result), x)
