"""sin and cos.

x = n pi/2 + r by Cody and Waite with pi/2 in three parts and fused multiply-adds, r as a sum of two numbers, then polynomials in
r^2 (fits on |r| <= pi/4, in float32 a little beyond). That is good up to |x| = `_HUGE`. Larger arguments are reduced by Payne and
Hanek's method (Radian reduction for trigonometric functions, 1983): only those bits of 2/pi that matter for the argument's exponent
are multiplied. Few programs have such arguments, so their code stands apart (`rare`).
"""

from __future__ import annotations

import functools
import math

from pierian.compiler.dtype import float32, float64, int32, int64
from pierian.compiler.elementary.arithmetic import (
    MANTISSA,
    Pair,
    absolute,
    add,
    any_two_sum,
    bits,
    c,
    is_single,
    mul,
    neg,
    polynomial,
    sub,
    two_product,
    two_sum,
)  # fmt: skip
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

PIO2 = (1.5707963267948966, 6.123233995736766e-17, -1.497384905065873e-33)
PIO2_32 = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
_TWO_OVER_PI = 0.6366197723675814
SIN32 = (-0.16666649281978607, 0.008331841789186, -0.00019474052533041686)
COS32 = (0.04166663810610771, -0.0013886946253478527, 2.439141826471314e-05)
SIN64 = (
    -0.16666666666666666, 0.008333333333333331, -0.0001984126984126504, 2.755731921932058e-06, -2.50521062259944e-08,
    1.6058530596645953e-10, -7.586636882825159e-13,
)  # fmt: skip
COS64 = (
    0.041666666666666664, -0.0013888888888888887, 2.4801587301584632e-05, -2.755731922139249e-07,
    2.0876755787492604e-09, -1.1470460319209511e-11, 4.745838412531023e-14,
)  # fmt: skip
# The bits of 2/pi from 32 before the binary point on, 32 at a time, for float32 exponents up to 127.
_TWO_OVER_PI_WORDS = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)
# Below, multiples of pi/2 up to the argument lose nothing to rounding but what the polynomials' range has room for.
_HUGE = {"float32": 2.0**18, "float64": 2.0**28}
# Exponents that share a row of the float64 table, and the bits after the binary point it holds.
_STEP = 8
_TABLE_BITS = 210


Reduced = tuple[
    Scalar, Scalar, Scalar
]  # n modulo 4 in the low bits of an integer, r, and the rest of r below its last bit


def sin(x: Scalar) -> Scalar:
    """Sine of an angle in radians; NaN for infinities."""
    return ir.rare(_is_huge(x), "sin_huge", x, _sin(x, *_reduce(absolute(x))))


def cos(x: Scalar) -> Scalar:
    """Cosine of an angle in radians; NaN for infinities."""
    return ir.rare(_is_huge(x), "cos_huge", x, _cos(*_reduce(x)))


def sin_huge(x: Scalar) -> Scalar:
    """Sine of a large number."""
    return _sin(x, *_reduce_huge(absolute(x)))


def cos_huge(x: Scalar) -> Scalar:
    """Cosine of a large number."""
    return _cos(*_reduce_huge(absolute(x)))


def _sin(x: Scalar, n: Scalar, r: Scalar, low: Scalar) -> Scalar:
    """From the reduced magnitude; the sign of x, zeros included, is put on in the end."""
    value = ir.select(_is_odd(n), _cosine(r, low), _sine(r, low))
    return _turned(value, ir.binary("xor", _second_bit(n), ir.binary("and", bits(x), _top(n))))


def _cos(n: Scalar, r: Scalar, low: Scalar) -> Scalar:
    value = ir.select(_is_odd(n), _sine(r, low), _cosine(r, low))
    return _turned(value, _second_bit(ir.binary("add", n, ir.const(1, n.dtype))))


def _is_huge(x: Scalar) -> Scalar:
    return ir.compare("ge", absolute(x), c(_HUGE[x.dtype.name], x))


def _is_odd(n: Scalar) -> Scalar:
    return ir.compare("ne", ir.binary("and", n, ir.const(1, n.dtype)), ir.const(0, n.dtype))


def _second_bit(n: Scalar) -> Scalar:
    """The second lowest bit of an integer as a float's sign bit, all others zero."""
    return ir.binary("and", ir.binary("shl", n, ir.const(n.dtype.bits - 2, n.dtype)), _top(n))


def _top(n: Scalar) -> Scalar:
    return ir.const(-(1 << (n.dtype.bits - 1)), n.dtype)


def _turned(value: Scalar, sign: Scalar) -> Scalar:
    """The value with its sign changed where a sign bit is set."""
    return ir.bitcast(ir.binary("xor", bits(value), sign), value.dtype)


def _reduce(x: Scalar) -> Reduced:
    """Of a number that is not huge."""
    unit = c(1.5 * 2.0 ** MANTISSA[x.dtype.name], x)
    shifted = ir.fma(x, c(_TWO_OVER_PI, x), unit)  # rounds to an integer, which is left in the low bits
    n = sub(shifted, unit)
    first, second, third = PIO2_32 if is_single(x) else PIO2
    # x - n pi/2 by its first part is exact: a multiple of the last place of 1, and below 1.
    whole = ir.fma(n, c(-first, x), x)
    part, rest = two_product(n, c(second, x))
    r = sub(whole, part)
    low = sub(sub(sub(whole, r), part), ir.fma(n, c(third, x), rest))
    if is_single(x):
        return bits(shifted), r, low
    return bits(shifted), *two_sum(r, low)


def _reduce_huge(x: Scalar) -> Reduced:
    """Of a large positive number."""
    if is_single(x):
        n, wide = _payne_hanek_single(x)
        r = ir.convert(wide, float32)
        return ir.convert(n, int32), r, ir.convert(sub(wide, ir.convert(r, float64)), float32)
    turns, (high, low) = _payne_hanek_double(x)
    return ir.convert(sub(turns, mul(c(4.0, turns), ir.unary("floor", mul(turns, c(0.25, turns))))), int64), high, low


def _payne_hanek_single(x: Scalar) -> tuple[Scalar, Scalar]:
    """Quadrant and residue of a large positive float32: x = m 2^k with a 24-bit integer m, times the 96 bits of 2/pi around
    2^-k, modulo 4; the residue has more than 32 good bits whatever x is."""
    raw = ir.convert(bits(x), int64)
    exponent = ir.binary("and", ir.binary("lshr", raw, ir.const(23, int64)), ir.const(255, int64))
    mantissa = ir.binary("or", ir.binary("and", raw, ir.const(0x7FFFFF, int64)), ir.const(0x800000, int64))
    # Bits of 2/pi with weight above 4 / 2^k give multiples of 4 and are skipped: start at k - 2 (k = exponent - 150).
    start = ir.binary("sub", exponent, ir.const(152 - 32, int64))
    word = ir.binary("lshr", start, ir.const(5, int64))
    shift = ir.binary("and", start, ir.const(31, int64))
    words = [_word(word, offset) for offset in range(4)]
    parts = [_window(words[i], words[i + 1], shift) for i in range(3)]
    third = ir.binary("lshr", ir.binary("mul", mantissa, parts[2]), ir.const(32, int64))
    middle = ir.binary("add", ir.binary("mul", mantissa, parts[1]), third)
    product = ir.binary("add", ir.binary("shl", ir.binary("mul", mantissa, parts[0]), ir.const(32, int64)), middle)
    rounded = ir.binary("add", product, ir.const(1 << 61, int64))
    quadrant = ir.binary("lshr", rounded, ir.const(62, int64))
    residue = ir.binary("sub", product, ir.binary("shl", quadrant, ir.const(62, int64)))
    r = mul(ir.convert(residue, float64), ir.const(math.pi / 2 * 2.0**-62, float64))
    return quadrant, ir.select(ir.compare("lt", x, c(math.inf, x)), r, ir.const(math.nan, float64))


def _payne_hanek_double(x: Scalar) -> tuple[Scalar, Pair]:
    """Quadrant (as a float, up to multiples of 4) and residue of a large positive float64: x = y 2^(8 j) with an integer y below
    2^60, times 2^(8 j) 2/pi modulo 4, which a table holds in four pieces of 53 bits."""
    exponent = ir.binary("and", ir.binary("lshr", bits(x), ir.const(52, int64)), ir.const(0x7FF, int64))
    above = ir.binary("ashr", ir.binary("sub", exponent, ir.const(1023 + 52, int64)), ir.const(3, int64))
    row = ir.binary("max", above, ir.const(0, int64))
    y = ir.ldexp(x, ir.fma(ir.convert(row, float64), c(-float(_STEP), x), c(ir.POWERS[float64], x)))
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
    for number in reversed(range(offset, min(offset + 5, len(_TWO_OVER_PI_WORDS)))):
        at = ir.compare("eq", position, ir.const(number - offset, int64))
        result = ir.select(at, ir.const(_TWO_OVER_PI_WORDS[number], int64), result)
    return result


def _window(high: Scalar, low: Scalar, shift: Scalar) -> Scalar:
    """32 bits from a pair of words, `shift` bits in."""
    pair = ir.binary("or", ir.binary("shl", high, ir.const(32, int64)), low)
    moved = ir.binary("lshr", ir.binary("shl", pair, shift), ir.const(32, int64))
    return ir.binary("and", moved, ir.const(0xFFFFFFFF, int64))


def _sine(r: Scalar, low: Scalar) -> Scalar:
    z = mul(r, r)
    cubic = mul(z, r)
    if is_single(r):
        return add(r, ir.fma(cubic, polynomial(z, SIN32), low))
    tail = polynomial(z, SIN64[1:])
    # r + r^3 S(z) + low (1 - z/2), the small parts first (the form of fdlibm's k_sin).
    inner = sub(mul(z, sub(mul(c(0.5, r), low), mul(cubic, tail))), low)
    return sub(r, sub(inner, mul(cubic, c(SIN64[0], r))))


def _cosine(r: Scalar, low: Scalar) -> Scalar:
    z = mul(r, r)
    half = mul(z, c(0.5, r))
    w = sub(c(1.0, r), half)
    rest = sub(sub(c(1.0, r), w), half)
    if is_single(r):
        return add(w, ir.fma(mul(z, z), polynomial(z, COS32), ir.fma(neg(r), low, rest)))
    return add(w, add(rest, sub(mul(mul(z, z), polynomial(z, COS64)), mul(r, low))))
