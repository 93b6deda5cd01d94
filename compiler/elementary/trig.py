"""sin and cos.

x = n pi/2 + r by Cody and Waite with pi/2 in three parts and fused multiply-adds, then polynomials in r^2 (Chebyshev fits
on |r| <= pi/4). float32 is reduced in float64, whose 53 bits keep the residue to float32 precision up to |x| = 2^30. Larger
arguments of both types are reduced by Payne and Hanek's method (Radian reduction for trigonometric functions, 1983): only those
bits of 2/pi that matter for the argument's exponent are multiplied.
"""

from __future__ import annotations

import functools
import math

from pierian.compiler.dtype import float32, float64, int64
from pierian.compiler.elementary.arithmetic import (
    Pair,
    add,
    any_two_sum,
    bits,
    c,
    mul,
    neg,
    polynomial,
    sub,
    two_product,
)  # fmt: skip
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

PIO2 = (1.5707963267948966, 6.123233995736766e-17, -1.497384905065873e-33)
_TWO_OVER_PI = 0.6366197723675814
SIN32 = (-0.1666666716337204, 0.008333331905305386, -0.00019840084132738411, 2.724962087086169e-06)
COS32 = (0.0416666679084301, -0.00138888880610466, 2.4800598112051375e-05, -2.7300703209220956e-07)
SIN64 = (
    -0.16666666666666666, 0.008333333333333331, -0.0001984126984126504, 2.755731921932058e-06, -2.50521062259944e-08,
    1.6058530596645953e-10, -7.586636882825159e-13,
)  # fmt: skip
COS64 = (
    0.041666666666666664, -0.0013888888888888887, 2.4801587301584632e-05, -2.755731922139249e-07,
    2.0876755787492604e-09, -1.1470460319209511e-11, 4.745838412531023e-14,
)  # fmt: skip
# The bits of 2/pi after the binary point, 32 at a time, for float32 exponents up to 127.
_TWO_OVER_PI_WORDS = (0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)
_HUGE = 2.0**28
# Exponents that share a row of the float64 table, and the bits after the binary point it holds.
_STEP = 8
_TABLE_BITS = 210


def sin(x: Scalar) -> Scalar:
    """Sine of an angle in radians; NaN for infinities."""
    quadrant, r, low = _reduce(x)
    swap = _bit(quadrant, 1)
    value = ir.select(swap, _cosine(r, low), _sine(r, low))
    negative = _bit(quadrant, 2)
    result = ir.convert(ir.select(negative, neg(value), value), x.dtype)
    tiny = ir.compare("lt", ir.unary("abs", x), c(1e-5 if x.dtype is float32 else 1e-10, x))
    return ir.select(tiny, x, result)


def cos(x: Scalar) -> Scalar:
    """Cosine of an angle in radians; NaN for infinities."""
    quadrant, r, low = _reduce(x)
    swap = _bit(quadrant, 1)
    value = ir.select(swap, _sine(r, low), _cosine(r, low))
    negative = _bit(ir.binary("add", quadrant, ir.const(1, quadrant.dtype)), 2)
    return ir.convert(ir.select(negative, neg(value), value), x.dtype)


def _bit(n: Scalar, mask: int) -> Scalar:
    return ir.compare("ne", ir.binary("and", n, ir.const(mask, n.dtype)), ir.const(0, n.dtype))


def _reduce(x: Scalar) -> tuple[Scalar, Scalar, Scalar | None]:
    """Quadrant as int64, r, and the part of r below its last bit (float64 only). r is float32 or float64 like x."""
    wide = ir.convert(x, float64)
    n = ir.unary("round", mul(wide, c(_TWO_OVER_PI, wide)))
    first = ir.fma(n, c(-PIO2[0], wide), wide)
    if x.dtype is float32:
        r = ir.fma(n, c(-PIO2[1], wide), first)
        moderate = ir.convert(ir.binary("sub", n, mul(c(4.0, n), ir.unary("floor", mul(n, c(0.25, n))))), int64)
        huge_quadrant, huge_r = _payne_hanek_single(x)
        huge = ir.compare("ge", ir.unary("abs", x), c(_HUGE, x))
        return ir.select(huge, huge_quadrant, moderate), ir.convert(ir.select(huge, huge_r, r), float32), None
    product = mul(n, c(PIO2[1], wide))
    rest = ir.fma(n, c(PIO2[1], wide), neg(product))
    r = sub(first, product)
    lost = sub(sub(first, r), product)
    low = sub(lost, ir.fma(n, c(PIO2[2], wide), rest))
    high = add(r, low)
    low = sub(low, sub(high, r))
    huge_n, (huge_high, huge_low) = _payne_hanek_double(x)
    huge = ir.compare("ge", ir.unary("abs", x), c(_HUGE, x))
    n, high, low = ir.select(huge, huge_n, n), ir.select(huge, huge_high, high), ir.select(huge, huge_low, low)
    quadrant = ir.convert(sub(n, mul(c(4.0, n), ir.unary("floor", mul(n, c(0.25, n))))), int64)
    return quadrant, high, low


def _payne_hanek_single(x: Scalar) -> tuple[Scalar, Scalar]:
    """Quadrant and residue of a large float32: x = m 2^k with a 24-bit integer m, times the 96 bits of 2/pi around
    2^-k, modulo 4; the residue has more than 32 good bits whatever x is."""
    raw = ir.convert(bits(x), int64)
    exponent = ir.binary("and", ir.binary("lshr", raw, ir.const(23, int64)), ir.const(255, int64))
    mantissa = ir.binary("or", ir.binary("and", raw, ir.const(0x7FFFFF, int64)), ir.const(0x800000, int64))
    # Bits of 2/pi with weight above 4 / 2^k give multiples of 4 and are skipped: start at k - 2 (k = exponent - 150).
    start = ir.binary("max", ir.binary("sub", exponent, ir.const(152, int64)), ir.const(0, int64))
    word = ir.binary("lshr", start, ir.const(5, int64))
    shift = ir.binary("and", start, ir.const(31, int64))
    words = [_word(word, offset) for offset in range(4)]
    parts = [_window(words[i], words[i + 1], shift) for i in range(3)]
    # Where k < 2 (28-bit arguments) the window begins left of the binary point: shift the product instead.
    early = ir.binary("max", ir.binary("sub", ir.const(152, int64), exponent), ir.const(0, int64))
    third = ir.binary("lshr", ir.binary("mul", mantissa, parts[2]), ir.const(32, int64))
    middle = ir.binary("add", ir.binary("mul", mantissa, parts[1]), third)
    product = ir.binary("add", ir.binary("shl", ir.binary("mul", mantissa, parts[0]), ir.const(32, int64)), middle)
    product = ir.binary("lshr", product, early)
    rounded = ir.binary("add", product, ir.const(1 << 61, int64))
    quadrant = ir.binary("lshr", rounded, ir.const(62, int64))
    residue = ir.binary("sub", product, ir.binary("shl", quadrant, ir.const(62, int64)))
    r = mul(ir.convert(residue, float64), ir.const(math.pi / 2 * 2.0**-62, float64))
    negative = ir.compare("lt", x, c(0.0, x))
    finite = ir.compare("lt", ir.unary("abs", x), c(math.inf, x))
    r = ir.select(negative, neg(r), r)
    signed = ir.select(negative, ir.unary("neg", quadrant), quadrant)
    return signed, ir.select(finite, r, ir.const(math.nan, float64))


def _payne_hanek_double(x: Scalar) -> tuple[Scalar, Pair]:
    """Quadrant (as a float, up to multiples of 4) and residue of a large float64: x = y 2^(8 j) with an integer y below 2^60, times
    2^(8 j) 2/pi modulo 4, which a table holds in four pieces of 53 bits."""
    exponent = ir.binary("and", ir.binary("lshr", bits(x), ir.const(52, int64)), ir.const(0x7FF, int64))
    above = ir.binary("ashr", ir.binary("sub", exponent, ir.const(1023 + 52, int64)), ir.const(3, int64))
    row = ir.binary("max", above, ir.const(0, int64))
    y = ir.ldexp(x, mul(ir.convert(row, float64), c(-float(_STEP), x)))
    pieces = [ir.lookup(table, row, float64) for table in _table()]
    first, first_low = two_product(y, pieces[0])
    second, second_low = two_product(y, pieces[1])
    third, third_low = two_product(y, pieces[2])
    # The large parts modulo 4, which is exact; then the nearest integer is taken out and the rest added from the top.
    total, carry = any_two_sum(_modulo_4(first), _modulo_4(first_low))
    total, rest = any_two_sum(total, _modulo_4(second))
    n = ir.unary("round", total)
    total = sub(total, n)
    low = add(third_low, mul(y, pieces[3]))
    for part in (second_low, third, carry, rest):
        total, lost = any_two_sum(total, part)
        low = add(low, lost)
    high, low = any_two_sum(total, low)
    r, r_low = two_product(high, c(PIO2[0], x))
    r_low = add(r_low, ir.fma(high, c(PIO2[1], x), mul(low, c(PIO2[0], x))))
    return n, any_two_sum(r, r_low)


def _modulo_4(x: Scalar) -> Scalar:
    """x less the nearest multiple of 4."""
    return ir.fma(ir.unary("round", mul(x, c(0.25, x))), c(-4.0, x), x)


@functools.cache
def _table() -> tuple[tuple[float, ...], ...]:
    """2^(8 j) 2/pi modulo 4 for j = 0, 1, ..., as four lists of 53-bit pieces."""
    rows = (1023 - 52) // _STEP + 1
    extra = 16
    ratio = _two_over_pi(rows * _STEP + _TABLE_BITS + extra)
    pieces: list[list[float]] = [[], [], [], []]
    for row in range(rows):
        window = ratio >> ((rows - row) * _STEP + extra)  # 2^(8 row) 2/pi with _TABLE_BITS bits after the point
        window %= 1 << (_TABLE_BITS + 2)
        for number, piece in enumerate(pieces):
            below = 53 * (3 - number)
            piece.append(math.ldexp(float((window >> below) % (1 << 53)), below - _TABLE_BITS))
    return tuple(map(tuple, pieces))


def _two_over_pi(digits: int) -> int:
    """floor(2/pi 2^digits) but for the last few bits, by Machin's formula in integers."""
    scale = 1 << (digits + 64)

    def arctangent_of_reciprocal(n: int) -> int:
        term = total = scale // n
        for k in range(3, 2 * digits, 2):
            term //= n * n
            if not term:
                break
            total += term // k if k % 4 == 1 else -(term // k)
        return total

    pi = 4 * (4 * arctangent_of_reciprocal(5) - arctangent_of_reciprocal(239))
    return (2 * scale << digits) // pi


def _word(position: Scalar, offset: int) -> Scalar:
    """32 bits of 2/pi: word number `position + offset`."""
    result = ir.const(_TWO_OVER_PI_WORDS[-1], int64)
    for number in reversed(range(offset, min(offset + 4, len(_TWO_OVER_PI_WORDS)))):
        at = ir.compare("eq", position, ir.const(number - offset, int64))
        result = ir.select(at, ir.const(_TWO_OVER_PI_WORDS[number], int64), result)
    return result


def _window(high: Scalar, low: Scalar, shift: Scalar) -> Scalar:
    """32 bits from a pair of words, `shift` bits in."""
    pair = ir.binary("or", ir.binary("shl", high, ir.const(32, int64)), low)
    moved = ir.binary("lshr", ir.binary("shl", pair, shift), ir.const(32, int64))
    return ir.binary("and", moved, ir.const(0xFFFFFFFF, int64))


def _sine(r: Scalar, low: Scalar | None) -> Scalar:
    z = mul(r, r)
    if low is None:
        return ir.fma(mul(z, r), polynomial(z, SIN32), r)
    cubic = mul(z, r)
    tail = polynomial(z, SIN64[1:])
    # r + r^3 S(z) + low (1 - z/2), the small parts first (the form of fdlibm's k_sin).
    inner = sub(mul(z, sub(mul(c(0.5, r), low), mul(cubic, tail))), low)
    return sub(r, sub(inner, mul(cubic, c(SIN64[0], r))))


def _cosine(r: Scalar, low: Scalar | None) -> Scalar:
    z = mul(r, r)
    half = mul(z, c(0.5, r))
    if low is None:
        return add(sub(c(1.0, r), half), mul(mul(z, z), polynomial(z, COS32)))
    w = sub(c(1.0, r), half)
    rest = sub(sub(c(1.0, r), w), half)
    return add(w, add(rest, sub(mul(mul(z, z), polynomial(z, COS64)), mul(r, low))))
