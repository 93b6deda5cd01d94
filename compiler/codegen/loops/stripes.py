"""Sums over long rows: a few rows at a time in stripes of columns that stay in the first cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.evaluate import Scope
from pierian.compiler.codegen.loops.plan import (
    ROWS,
    STRIPE,
)
from pierian.compiler.codegen.loops.rows import RowEmitter
from pierian.compiler.codegen.writer import Value, i64, vector
from pierian.compiler.kernel.nodes import Axis, Reduce
from pierian.compiler.schedule.rows import groups


class StripeEmitter(RowEmitter):
    """Adds sums over long rows, read in stripes."""

    def _streams_rows(self) -> bool:
        """True for one pass over one inner axis whose rows are known to be long and many."""
        first = groups(self.kernel.body)[0]
        rest = self.kernel.body[len(first) :]
        extent, rows = self.kernel.axes[-1].extent, first[0].axes[0].extent if first[0].axes else 0
        return (
            len(first[0].axes) == 1
            and isinstance(extent, int)
            and isinstance(rows, int)
            and extent >= STRIPE // 2
            and rows >= 8 * ROWS
            and all(
                isinstance(s, Reduce) and not s.combiner.startswith("arg") and not s.value.dtype.is_bool for s in first
            )
            and not any(statement.axes for statement in rest)
        )

    def _stripe_loop(self, scope: Scope, axis: Axis, low: Value, high: Value) -> None:
        """Columns from low to high, a stripe at a time; the order of additions in a column is that of its rows."""
        writer = scope.writer
        reduces = [s for s in groups(self.kernel.body)[0] if isinstance(s, Reduce)]
        cells = [writer.alloca(r.value.dtype.llvm, STRIPE + self.plan.lanes) for r in reduces]
        with writer.loop(low, high, STRIPE) as stripe:
            end = writer.minimum(writer.add(stripe.index, i64(STRIPE)), high)
            self._stripe(Scope(scope.frame, scope), axis, stripe.index, end, reduces, cells)

    def _stripe(
        self, scope: Scope, axis: Axis, low: Value, high: Value, reduces: Sequence[Reduce], cells: Sequence[Value]
    ) -> None:
        writer, lanes = scope.writer, self.plan.lanes

        def columns(body: Callable[[Scope, list[Value]], None], parent: Scope) -> None:
            """Over the stripe in vectors; `body` gets the place of each sum."""
            whole = writer.add(low, writer.op("and", writer.sub(high, low), i64(-lanes)))
            for begin, end in ((low, whole), (whole, high)):
                with writer.loop(begin, end, lanes) as loop:
                    column = Scope(parent.frame, parent, {axis.name: loop.index}, axis.name)
                    column.mask = column.tail_mask(loop.index, high) if end is high else None
                    at = writer.sub(loop.index, low)
                    body(
                        column,
                        [writer.gep(cell, r.value.dtype.llvm, at) for cell, r in zip(cells, reduces, strict=True)],
                    )

        def start(column: Scope, places: list[Value]) -> None:
            for reduce, place in zip(reduces, places, strict=True):
                (neutral,) = combine.identity(reduce.combiner, reduce.value.dtype, lanes)
                writer.store(neutral, place, reduce.value.dtype.itemsize)

        def some_rows(first: Value, count: int) -> None:
            numbers = [writer.add(first, i64(k)) for k in range(count)]
            names = [reduce.axes[0].name for reduce in reduces]
            rows = [Scope(scope.frame, scope, dict.fromkeys(names, number)) for number in numbers]
            for row in rows:
                row.hoist([reduce.value for reduce in reduces], [axis.name])

            def add_rows(column: Scope, places: list[Value]) -> None:
                for reduce, place in zip(reduces, places, strict=True):
                    dtype = reduce.value.dtype
                    state = [writer.load(place, vector(dtype.llvm, lanes), dtype.itemsize)]
                    for row in rows:
                        point = Scope(row.frame, row, {axis.name: column.values[axis.name]}, axis.name, column.mask)
                        state = combine.advance(writer, reduce.combiner, dtype, state, [point.vector(reduce.value)])
                    writer.store(state[0], place, dtype.itemsize)

            columns(add_rows, scope)

        def finish(column: Scope, places: list[Value]) -> None:
            for reduce, place in zip(reduces, places, strict=True):
                dtype = reduce.value.dtype
                self._define(column, reduce, [writer.load(place, vector(dtype.llvm, lanes), dtype.itemsize)])
            for statement in self.kernel.body[len(reduces) :]:
                if isinstance(statement, Reduce):
                    self._define(column, statement, self._reduce_one(column, statement))
                else:
                    column.store(statement.buffer, statement.indices, statement.value)

        extent = scope.dim(reduces[0].axes[0].extent)
        whole = writer.op("and", extent, i64(-ROWS))
        columns(start, scope)
        with writer.loop(i64(0), whole, ROWS) as block:
            some_rows(block.index, ROWS)
        with writer.loop(whole, extent, 1) as single:
            some_rows(single.index, 1)
        columns(finish, scope)
