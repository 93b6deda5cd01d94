"""How much a rewrite may change floating-point results."""

from __future__ import annotations

from enum import IntEnum


class Safety(IntEnum):
    """Classes of rules, each allowing what the ones before it allow.

    EXACT: every bit stays, for all inputs: infinities and signed zeros included. A NaN stays a NaN; which of its bits
        are set is left to the machine.
    SIGNED_ZERO: a zero may change its sign (x + 0 is x, but -0.0 + 0 is 0.0).
    FINITE: right where every value on the way is finite (x * 0 is 0, x - x is 0).
    REASSOCIATE: the order of operations may change, and results by rounding.
    """

    EXACT = 0
    SIGNED_ZERO = 1
    FINITE = 2
    REASSOCIATE = 3


def named(name: str) -> Safety:
    """The class called `exact`, `signed_zero`, `finite` or `reassociate`.

    Raises:
        KeyError: there is none of that name.
    """
    return Safety[name.upper()]
