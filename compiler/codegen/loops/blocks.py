"""Reductions with few results, cut into blocks: partial results in a first phase, combined in order in a second."""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.abi import KernelCode, Phase
from pierian.compiler.codegen.combine import State
from pierian.compiler.codegen.evaluate import Frame, Scope
from pierian.compiler.codegen.loops.plan import (
    BLOCK,
    FEW_OUTER,
    STRETCH,
)
from pierian.compiler.codegen.loops.squares import SquareEmitter
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i64
from pierian.compiler.dim import Dim, floordiv, maximum, product
from pierian.compiler.kernel.nodes import Reduce
from pierian.compiler.schedule.rows import groups


class BlockEmitter(SquareEmitter):
    """Adds reductions cut into blocks, and chooses among the nests."""

    def emit(self) -> KernelCode:
        split = self._split()
        if split is not None:
            phases, shared = self._emit_split(*split)
        else:
            shared = 0
            emit = {"rows": self._emit_rows, "squares": self._emit_squares}.get(self.plan.kind, self._emit_vectors)
            phases = [emit()]
        plan = self.plan
        axes = " x ".join(str(axis.extent) for axis in self.kernel.axes) or "1"
        note = f"{plan.kind} over {axes}, {plan.lanes} lanes x {plan.unroll}, tasks {phases[0].tasks}"
        if split is not None:
            note += f", reduction cut into blocks of {BLOCK}"
        if self.streamed:
            note += f", {', '.join(sorted(self.streamed))} stored past the caches"
        return KernelCode("\n".join(self.texts), frozenset(self.declarations), tuple(phases), shared, 0, (note,))

    def _split(self) -> tuple[Sequence[Reduce], Dim, Dim] | None:
        """The first pass of a kernel with few outer points and a long reduction: its reductions, the rows of one
        block along their slowest axis, and the number of blocks."""
        kernel = self.kernel
        group = groups(kernel.body)[0] if kernel.body else []
        reduces = [statement for statement in group if isinstance(statement, Reduce)]
        if not reduces or len(reduces) != len(group) or self.plan.kind in ("pointwise", "squares"):
            return None
        points = product([axis.extent for axis in kernel.axes])
        axes = reduces[0].axes
        if not axes:
            return None
        length = product([axis.extent for axis in axes])
        if self.plan.kind == "columns":
            few: Dim = points if isinstance(points, int) else 1 << 40
            if not (isinstance(few, int) and few <= 512):
                return None
        elif not (isinstance(points, int) and points <= FEW_OUTER):
            return None
        if isinstance(length, int) and isinstance(points, int) and length * points <= 2 * BLOCK:
            return None
        if any(statement.axes for statement in kernel.body[len(group) :]):
            return None
        below = product([axis.extent for axis in axes[1:]]) * (points if self.plan.kind == "columns" else 1)
        rows = floordiv(BLOCK - 1, maximum(below, 1)) + 1
        return reduces, rows, floordiv(axes[0].extent + rows - 1, rows)

    def _emit_split(self, reduces: Sequence[Reduce], rows: Dim, blocks: Dim) -> tuple[list[Phase], Dim]:
        kernel = self.kernel
        points = product([axis.extent for axis in kernel.axes])
        lanes = self.plan.lanes if self.plan.kind == "rows" else 1
        parts = [
            (reduce, type_)
            for reduce in reduces
            for type_ in combine.state_types(reduce.combiner, reduce.value.dtype, 1)
        ]
        slot = 8 * len(parts)

        def partial(writer: FunctionWriter, frame: Frame) -> None:
            scope = Scope(frame)
            count = scope.dim(points)
            length = scope.dim(reduces[0].axes[0].extent)
            with writer.loop(writer.arg("begin"), writer.arg("end")) as loop:
                low = writer.mul(loop.index, scope.dim(rows))
                high = writer.minimum(writer.add(low, scope.dim(rows)), length)
                base = writer.mul(loop.index, writer.mul(count, i64(slot)))
                block = Scope(frame, scope)
                if self.plan.kind == "columns":
                    self._partial_columns(block, reduces, (low, high), base, slot)
                else:
                    self._partial_rows(block, reduces, (low, high), base, slot)

        def final(writer: FunctionWriter, frame: Frame) -> None:
            scope = Scope(frame)
            count = scope.dim(points)
            total = scope.dim(blocks)

            def at_point(inside: Scope) -> None:
                number = self._flat_number(inside)
                starts = [v for r in reduces for v in combine.identity(r.combiner, r.value.dtype, 1)]
                # Blocks in stretches, as in a row: a sum of sums loses less to rounding.
                with writer.loop(i64(0), total, STRETCH, starts) as loop:
                    end = writer.minimum(writer.add(loop.index, i64(STRETCH)), total)
                    with writer.loop(loop.index, end, 1, starts) as stretch:
                        cell = writer.add(writer.mul(stretch.index, count), number)
                        found = self._read_states(inside, reduces, writer.mul(cell, i64(slot)))
                        stretch.next = self._joined(
                            writer, reduces, stretch.carried, [v for state in found for v in state]
                        )
                    loop.next = self._joined(writer, reduces, loop.carried, stretch.results)
                results = iter(loop.results)
                for reduce in reduces:
                    size = len(combine.state_types(reduce.combiner, reduce.value.dtype, 1))
                    self._define(inside, reduce, [next(results) for _ in range(size)])
                self._statements(inside, kernel.body[len(reduces) :], 1)

            self._over_points(scope, kernel.axes, i64(0), count, at_point)

        first = self._function("partial", partial, self.plan.lanes if self.plan.kind == "columns" else lanes)
        second = self._function("final", final, 1)
        return [Phase(first, blocks), Phase(second, 1, True)], blocks * points * slot

    def _joined(
        self, writer: FunctionWriter, reduces: Sequence[Reduce], before: Sequence[Value], behind: Sequence[Value]
    ) -> list[Value]:
        """States of all reductions, and those of later elements, as one; each a flat list."""
        left, right = iter(before), iter(behind)
        joined: list[Value] = []
        for reduce in reduces:
            dtype = reduce.value.dtype
            size = len(combine.state_types(reduce.combiner, dtype, 1))
            states = ([next(side) for _ in range(size)] for side in (left, right))
            joined += combine.combine(writer, reduce.combiner, dtype, *states)
        return joined

    def _flat_number(self, scope: Scope) -> Value:
        number = i64(0)
        for axis in self.kernel.axes:
            number = scope.writer.add(scope.writer.mul(number, scope.dim(axis.extent)), scope.values[axis.name])
        return number

    def _partial_rows(
        self, scope: Scope, reduces: Sequence[Reduce], span: tuple[Value, Value], base: Value, slot: int
    ) -> None:
        writer = scope.writer

        def at_point(inside: Scope) -> None:
            states = self._row_states(inside, reduces, span)
            offset = writer.add(base, writer.mul(self._flat_number(inside), i64(slot)))
            for part, value in enumerate(v for state in states for v in state):
                self._write_part(inside, writer.add(offset, i64(8 * part)), value)

        points = scope.dim(product([axis.extent for axis in self.kernel.axes]))
        self._over_points(scope, self.kernel.axes, i64(0), points, at_point)

    def _partial_columns(
        self, scope: Scope, reduces: Sequence[Reduce], span: tuple[Value, Value], base: Value, slot: int
    ) -> None:
        """Lanes along the last outer axis; each lane's state goes to its own slot."""
        writer, lanes = scope.writer, self.plan.lanes
        last = self.kernel.axes[-1]
        before = self.kernel.axes[:-1]
        extent = scope.dim(last.extent)

        def at_point(inside: Scope) -> None:
            with writer.loop(i64(0), extent, lanes) as loop:
                column = Scope(inside.frame, inside, {last.name: loop.index}, last.name)
                column.mask = column.tail_mask(loop.index, extent)
                (states,) = self._walk(inside, [column], reduces, span)
                number = self._flat_number(column)
                cell = writer.splat(writer.add(base, writer.mul(number, i64(slot))), lanes)
                steps = writer.op("mul", writer.iota("i64", lanes), constant(slot, "i64", lanes))
                offsets = writer.op("add", cell, steps)
                for part, value in enumerate(v for state in states for v in state):
                    self._scatter_part(column, offsets, 8 * part, value)

        points = scope.dim(product([axis.extent for axis in before]))
        self._over_points(scope, before, i64(0), points, at_point)

    def _write_part(self, scope: Scope, offset: Value, value: Value) -> None:
        writer = scope.writer
        pointer = writer.gep(scope.frame.parameters.shared, "i8", offset)
        stored = writer.cast("zext", value, "i8") if value.type == "i1" else value
        writer.store(stored, pointer, 8)

    def _scatter_part(self, scope: Scope, offsets: Value, byte: int, value: Value) -> None:
        """Slots are 8 bytes apart or more, so each lane is stored on its own."""
        writer = scope.writer
        lanes = self.plan.lanes
        assert scope.mask is not None
        for lane in range(lanes):
            with writer.when(writer.extract(scope.mask, lane)):
                one = writer.extract(value, lane)
                self._write_part(scope, writer.add(writer.extract(offsets, lane), i64(byte)), one)

    def _read_states(self, scope: Scope, reduces: Sequence[Reduce], offset: Value) -> list[State]:
        writer = scope.writer
        found = []
        part = 0
        for reduce in reduces:
            state = []
            for type_ in combine.state_types(reduce.combiner, reduce.value.dtype, 1):
                pointer = writer.gep(scope.frame.parameters.shared, "i8", writer.add(offset, i64(8 * part)))
                if type_ == "i1":
                    state.append(writer.cmp("icmp ne", writer.load(pointer, "i8", 8), constant(0, "i8")))
                else:
                    state.append(writer.load(pointer, type_, 8))
                part += 1
            found.append(state)
        return found
