"""What lowering rules call: constructors of scalar expressions by name."""

from __future__ import annotations

from pierian.compiler.dim import Dim
from pierian.compiler.dtype import DType, bool_, int64
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar


class ScalarBuilder:
    """Scalar expressions; Python numbers are taken as constants of the other argument's type.

    `s.add(x, 1.0)`, `s.exp(x)`, `s.select(s.lt(x, 0), s.neg(x), x)`.
    """

    def const(self, value: bool | int | float, dtype: DType) -> Scalar:
        return ir.const(value, dtype)

    def dim(self, expression: Dim, dtype: DType = int64) -> Scalar:
        """A size or index, converted to `dtype`."""
        return ir.convert(ir.dim(expression), dtype) if dtype is not int64 else ir.dim(expression)

    def unary(self, op: str, x: Scalar) -> Scalar:
        """Any one-argument operation by name, elementary functions included."""
        return ir.unary(op, x)

    def binary(self, op: str, x: Scalar | float, y: Scalar | float) -> Scalar:
        x, y = _pair(x, y)
        return ir.binary(op, x, y)

    def compare(self, op: str, x: Scalar | float, y: Scalar | float) -> Scalar:
        x, y = _pair(x, y)
        return ir.compare(op, x, y)

    def add(self, x: Scalar | float, y: Scalar | float) -> Scalar:
        return self.binary("add", x, y)

    def sub(self, x: Scalar | float, y: Scalar | float) -> Scalar:
        return self.binary("sub", x, y)

    def mul(self, x: Scalar | float, y: Scalar | float) -> Scalar:
        return self.binary("mul", x, y)

    def div(self, x: Scalar | float, y: Scalar | float) -> Scalar:
        return self.binary("div", x, y)

    def min(self, x: Scalar | float, y: Scalar | float) -> Scalar:
        return self.binary("min", x, y)

    def max(self, x: Scalar | float, y: Scalar | float) -> Scalar:
        return self.binary("max", x, y)

    def neg(self, x: Scalar) -> Scalar:
        return ir.unary("neg", x)

    def lt(self, x: Scalar | float, y: Scalar | float) -> Scalar:
        return self.compare("lt", x, y)

    def eq(self, x: Scalar | float, y: Scalar | float) -> Scalar:
        return self.compare("eq", x, y)

    def logical_and(self, x: Scalar, y: Scalar) -> Scalar:
        return ir.scalar("and", bool_, (x, y))

    def logical_or(self, x: Scalar, y: Scalar) -> Scalar:
        return ir.scalar("or", bool_, (x, y))

    def logical_not(self, x: Scalar) -> Scalar:
        return ir.scalar("not", bool_, (x,))

    def select(self, condition: Scalar, x: Scalar | float, y: Scalar | float) -> Scalar:
        x, y = _pair(x, y)
        return ir.select(condition, x, y)

    def fma(self, x: Scalar, y: Scalar, z: Scalar) -> Scalar:
        return ir.fma(x, y, z)

    def convert(self, x: Scalar, dtype: DType) -> Scalar:
        return ir.convert(x, dtype)

    def bitcast(self, x: Scalar, dtype: DType) -> Scalar:
        return ir.bitcast(x, dtype)


def _pair(x: Scalar | float, y: Scalar | float) -> tuple[Scalar, Scalar]:
    if isinstance(x, Scalar):
        return x, y if isinstance(y, Scalar) else ir.const(y, x.dtype)
    assert isinstance(y, Scalar), "at least one argument must be an expression"
    return ir.const(x, y.dtype), y
