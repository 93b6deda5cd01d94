"""How many shuffles separate interleaved places, and by which step."""

from __future__ import annotations


def smallest_prime(count: int) -> int:
    """The smallest prime that divides a number above 1."""
    return next(prime for prime in range(2, count + 1) if count % prime == 0)


def shuffle_count(count: int, lanes: int) -> int:
    """Shuffles of two vectors that separate `count` places (see `pierian.compiler.codegen.interleave`)."""
    if count == 1:
        return 0
    if count % lanes == 0:
        return count * (lanes.bit_length() - 1)
    prime = smallest_prime(count)
    return count * (prime - 1) + prime * shuffle_count(count // prime, lanes)
