"""Rewrite rules, grouped by operator family.

Laws for rules:
  1. A rule never makes a graph cost more.
  2. `exact` rules keep every bit for all inputs: NaN, infinities and signed zeros included. `x + 0` is not exact (-0.0 + 0 is
     0.0); `x * 1`, `x - 0` and `x / 1` are.
  3. There is no general commutativity: constants stand on the right once (`constant_right`), other rules rely on it.
  4. A rule does not mention locations or names; the engine does.
"""

from pierian.compiler.passes.rules import arithmetic, comparison, movement, reduction, slicing

ALL = (*arithmetic.RULES, *comparison.RULES, *movement.RULES, *reduction.RULES, *slicing.RULES)
