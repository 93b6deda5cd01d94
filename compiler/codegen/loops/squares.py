"""Pointwise kernels that turn arrays around: results lie along one axis, what they read lies along another.

Squares of lanes x lanes elements are read along the axis they lie along and transposed in registers, so that neither loads nor
stores go element by element. What squares leave over at the edges goes the plain way.
"""

from __future__ import annotations

from pierian.compiler.codegen.abi import Phase
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.loops.plan import GRAIN, transposed_loads
from pierian.compiler.codegen.loops.vectors import VectorEmitter
from pierian.compiler.codegen.transpose import transpose
from pierian.compiler.codegen.turns import whole_end
from pierian.compiler.codegen.writer import FunctionWriter, Value, i64
from pierian.compiler.dim import Dim, ceildiv, floordiv, maximum, product
from pierian.compiler.kernel.nodes import Axis, Store


class SquareEmitter(VectorEmitter):
    """Adds kernels walked in squares: the last two outer axes are the one that loads and the one that stores lie along."""

    def _emit_squares(self) -> Phase:
        kernel, lanes = self.kernel, self.plan.lanes
        *before, across, along = kernel.axes
        strips = ceildiv(across.extent, lanes)
        per_task = floordiv(GRAIN, maximum(along.extent * lanes, 1)) + 1
        groups = floordiv(strips + per_task - 1, per_task)
        tasks: Dim = groups * product([axis.extent for axis in before])

        def write(writer: FunctionWriter, frame: Frame) -> None:
            scope = Scope(frame)
            each, count, total = scope.dim(per_task), scope.dim(groups), scope.dim(across.extent)
            for axis in before:
                scope.dim(axis.extent)
            with writer.loop(writer.arg("begin"), writer.arg("end")) as task:
                rest = writer.op("sdiv", task.index, count)
                group = writer.sub(task.index, writer.mul(rest, count))
                low = writer.mul(writer.mul(group, each), i64(lanes))
                high = writer.minimum(writer.add(low, writer.mul(each, i64(lanes))), total)
                self._strips(Scope(frame, scope, unravel(scope, rest, before)), across, along, low, high)

        elements = product([axis.extent for axis in kernel.axes])
        return Phase(self._function("f", write, lanes), tasks, isinstance(elements, int) and elements <= GRAIN)

    def _strips(self, scope: Scope, across: Axis, along: Axis, low: Value, high: Value) -> None:
        writer, lanes = scope.writer, self.plan.lanes
        extent = scope.dim(along.extent)
        full = writer.round_down(extent, lanes)
        middle = whole_end(writer, low, high, lanes)
        with writer.loop(low, middle, lanes) as strip:
            with writer.loop(i64(0), full, lanes) as column:
                self._square(scope, across, along, strip.index, column.index)
            with (
                writer.when(writer.cmp("icmp slt", full, extent)),
                writer.loop(strip.index, writer.add(strip.index, i64(lanes))) as row,
            ):
                self._plain(Scope(scope.frame, scope, {across.name: row.index}), along, full, extent)
        with writer.loop(middle, high) as row:
            line = Scope(scope.frame, scope, {across.name: row.index})
            with writer.loop(i64(0), extent, lanes) as column:
                self._plain(line, along, column.index, extent)

    def _plain(self, line: Scope, along: Axis, at: Value, end: Value) -> None:
        inside = Scope(line.frame, line, {along.name: at}, along.name)
        inside.mask = inside.tail_mask(at, end)
        self._store_all([statement.value for statement in self.kernel.body], [inside])

    def _square(self, scope: Scope, across: Axis, along: Axis, row: Value, column: Value) -> None:
        writer, lanes = scope.writer, self.plan.lanes
        turned = {}
        for load in transposed_loads(self.kernel, along.name, across.name):
            lines = []
            for lane in range(lanes):
                at = {along.name: writer.add(column, i64(lane)), across.name: row}
                lines.append(Scope(scope.frame, scope, at, across.name).vector(load))
            turned[load] = transpose(writer, lines)
        for lane in range(lanes):
            at = {along.name: column, across.name: writer.add(row, i64(lane))}
            inside = Scope(scope.frame, scope, at, along.name)
            for load, lines in turned.items():
                inside.define(load, lines[lane])
            for statement in self.kernel.body:
                assert isinstance(statement, Store)
                inside.store(statement.buffer, statement.indices, statement.value)
