"""Counter-based random numbers: Philox-4x32-10.

Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. Ten rounds of multiplications and
exclusive ors turn a counter and a key into four independent 32-bit words, so that the number at any position is computed from
the position alone.
"""

from __future__ import annotations

import math

from pierian.compiler.dtype import DType, float32, float64, int32, int64
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

Words = tuple[Scalar, Scalar, Scalar, Scalar]
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: Words, key: tuple[Scalar, Scalar], rounds: int = 10) -> Words:
    """Four int32 words (as bits) for a counter of four and a key of two int32 words."""
    a, b, x, y = counter
    first, second = key
    for number in range(rounds):
        if number:
            first = ir.binary("add", first, ir.const(WEYL[0], int32))
            second = ir.binary("add", second, ir.const(WEYL[1], int32))
        m, n = ir.const(MULTIPLIERS[0], int32), ir.const(MULTIPLIERS[1], int32)
        high_a, low_a = ir.scalar("mulhi_u32", int32, (m, a)), ir.binary("mul", m, a)
        high_x, low_x = ir.scalar("mulhi_u32", int32, (n, x)), ir.binary("mul", n, x)
        a, b, x, y = (
            ir.binary("xor", ir.binary("xor", high_x, b), first),
            low_x,
            ir.binary("xor", ir.binary("xor", high_a, y), second),
            low_a,
        )
    return a, b, x, y


def uniform(words: Words, dtype: DType) -> Scalar:
    """A number in [0, 1): the leading 24 (float32) or 53 (float64) bits as a fraction."""
    if dtype is float32:
        top = ir.binary("lshr", words[0], ir.const(8, int32))
        return ir.binary("mul", ir.convert(top, float32), ir.const(2.0**-24, float32))
    top = ir.binary("lshr", join(words[0], words[1]), ir.const(11, int64))
    return ir.binary("mul", ir.convert(top, float64), ir.const(2.0**-53, float64))


def join(high: Scalar, low: Scalar) -> Scalar:
    """Two 32-bit words as one int64."""
    upper = ir.binary("shl", ir.convert(high, int64), ir.const(32, int64))
    return ir.binary("or", upper, ir.binary("and", ir.convert(low, int64), ir.const(0xFFFFFFFF, int64)))


def normal(words: Words, dtype: DType) -> Scalar:
    """A standard normal number by Box and Muller (1958), from one number in (0, 1] and one angle."""
    low = uniform(words, dtype)
    unit = ir.binary("sub", ir.const(1.0, dtype), low)
    angle_words = (words[2], words[3], words[0], words[1])
    angle = ir.binary("mul", uniform(angle_words, dtype), ir.const(2 * math.pi, dtype))
    radius = ir.unary("sqrt", ir.binary("mul", ir.const(-2.0, dtype), ir.unary("log", unit)))
    return ir.binary("mul", radius, ir.unary("cos", angle))
