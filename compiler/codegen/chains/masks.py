"""Which part of a block of scores a comparison of positions masks. It is linear in the row and the column, so corners say."""

from __future__ import annotations

from pierian.compiler.codegen.evaluate import Frame, Scope
from pierian.compiler.codegen.writer import Value, i64
from pierian.compiler.dim import coefficient
from pierian.compiler.kernel.nodes import Axis
from pierian.compiler.schedule.chains import Masked


class MaskTests:
    """Tests for the rows [first, first + height); `unit`: columns of what is left out whole."""

    def __init__(self, frame: Frame, m: Axis, column: Axis, masked: Masked, unit: int) -> None:
        self.frame, self.writer = frame, frame.writer
        self.masked, self.unit = masked, unit
        self.column, self.m = column.name, m.name

    def everywhere(self, scope: Scope, first: Value, height: Value, start: Value, end: Value, holds: bool) -> Value:
        """Whether the comparison holds, or does not, in all of the columns [start, end)."""
        w = self.writer
        corner = {self.m: self._row(first, height, holds), self.column: w.sub(end, i64(1))}
        step = coefficient(self.masked.difference, self.column)
        assert isinstance(step, int)
        if (step > 0) == holds:
            corner[self.column] = start
        value = Scope(self.frame, scope, corner).dim(self.masked.difference)
        limit = i64(0 if self.masked.strict else -1)
        return w.cmp("icmp sgt" if holds else "icmp sle", value, limit)

    def masked_from(self, scope: Scope, first: Value, height: Value, start: Value, end: Value) -> Value:
        """The column of [start, end) from which on all rows are masked, at the edge of a unit; where that does not follow from the
        comparison, `start` if all is masked, else `end`."""
        w, masked = self.writer, self.masked
        if coefficient(masked.difference, self.column) != (1 if masked.holds else -1):
            return w.select(self.everywhere(scope, first, height, start, end, masked.holds), start, end)
        corner = {self.column: i64(0), self.m: self._row(first, height, masked.holds)}
        rest = Scope(self.frame, scope, corner).dim(masked.difference)
        limit = 0 if masked.strict else -1
        column = w.sub(i64(limit + 1), rest) if masked.holds else w.sub(rest, i64(limit))
        inside = w.intrinsic("llvm.smax", w.sub(column, start), i64(0))
        units = w.op("sdiv", w.add(inside, i64(self.unit - 1)), i64(self.unit))
        return w.minimum(w.add(start, w.mul(units, i64(self.unit))), end)

    def _row(self, first: Value, height: Value, holds: bool) -> Value:
        """The row where the comparison holds least, or most."""
        step = coefficient(self.masked.difference, self.m)
        assert isinstance(step, int)
        return first if (step > 0) == holds else self.writer.sub(self.writer.add(first, height), i64(1))
