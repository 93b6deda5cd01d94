"""Which exponentials are known to have arguments that are never positive."""

from __future__ import annotations

import pytest

from pierian.compiler.dim import symbol
from pierian.compiler.dtype import float32
from pierian.compiler.elementary.decays import find_decays
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Reduce, Store
from pierian.compiler.kernel.scalar import Scalar

I, K, L = map(symbol, ("%i", "%k", "%l"))
TOP = ir.reduced("top", float32)


def x(index: object) -> Scalar:
    return ir.load("x", (I, index), float32)  # type: ignore[arg-type]


def const(value: float) -> Scalar:
    return ir.const(value, float32)


SQUARE = ir.binary("mul", x(L), x(L))
ARGUMENTS = {
    "minus a square": (ir.unary("neg", SQUARE), True),
    "a square, scaled": (ir.binary("mul", SQUARE, const(-0.5)), True),
    "minus a magnitude": (ir.unary("neg", ir.unary("abs", x(L))), True),
    "from the maximum of the row": (ir.binary("sub", x(L), TOP), True),
    "from the larger of two": (ir.binary("sub", x(L), ir.binary("max", x(L), x(K))), True),
    "at most zero": (ir.binary("min", x(L), const(0.0)), False),
    "at most minus one": (ir.binary("min", x(L), const(-1.0)), True),
    "to the maximum": (ir.binary("sub", TOP, x(L)), False),
    "another element from the maximum": (ir.binary("sub", ir.load("y", (I, L), float32), TOP), False),
    "anything": (x(L), False),
    "a square": (SQUARE, False),
    "minus a product": (ir.unary("neg", ir.binary("mul", x(L), x(K))), False),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_is_never_positive(name: str) -> None:
    argument, expected = ARGUMENTS[name]
    peak = Reduce("top", "max", (Axis("%k", 8),), x(K))
    store = Store("z", (I, L), ir.unary("exp", argument), (Axis("%l", 8),))
    _, value = find_decays((peak, store))
    assert value is ir.unary("decay" if expected else "exp", argument)
