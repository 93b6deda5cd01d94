"""Short rows: where the last axis is shorter than a vector, as the three colours of a pixel, lanes lie along the axis before it.

Rows of E elements one after the other are read as E whole vectors and sorted in registers into one vector for each place in the row;
results are put together the same way. Each place is written out, so what depends on it is a constant.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen.abi import Phase
from pierian.compiler.codegen.evaluate import Frame, Scope
from pierian.compiler.codegen.interleave import join, repeat
from pierian.compiler.codegen.loops.plan import even_share
from pierian.compiler.codegen.loops.sorted_rows import sorted_rows
from pierian.compiler.codegen.loops.squares import SquareEmitter
from pierian.compiler.codegen.scalars import to_memory
from pierian.compiler.codegen.writer import FunctionWriter, Value, i64
from pierian.compiler.dim import Dim, ceildiv, product
from pierian.compiler.kernel.nodes import Axis, Store


class ShortRowEmitter(SquareEmitter):
    """Adds pointwise kernels over short rows: the last two axes are the place in a row, and the number of the row."""

    def _emit_short_rows(self) -> Phase:
        kernel, plan = self.kernel, self.plan
        *before, short, along = kernel.axes
        assert isinstance(short.extent, int)
        share = even_share(along.extent, max(1, plan.grain // short.extent), plan.lanes)
        group = Axis("group", ceildiv(along.extent, share))
        tasks: Dim = group.extent * product([axis.extent for axis in before])

        def write(writer: FunctionWriter, frame: Frame) -> None:
            scope = Scope(frame)
            total = scope.dim(along.extent)

            def one_task(inside: Scope) -> None:
                low = writer.mul(inside.values[group.name], i64(share))
                self._rows_of_task(inside, short, along, low, writer.minimum(writer.add(low, i64(share)), total))

            self._over_points(scope, [*before, group], writer.arg("begin"), writer.arg("end"), one_task)

        elements = product([axis.extent for axis in kernel.axes])
        small = isinstance(elements, int) and elements <= plan.grain
        return Phase(self._function("f", write, plan.lanes), tasks, small)

    def _rows_of_task(self, scope: Scope, short: Axis, along: Axis, low: Value, high: Value) -> None:
        statements = [s for s in self.kernel.body if isinstance(s, Store)]
        values = [statement.value for statement in statements]
        scope.hoist(values, [along.name, short.name])
        assert isinstance(short.extent, int)
        places = [Scope(scope.frame, scope, {short.name: i64(place)}) for place in range(short.extent)]
        for place in places:
            place.hoist(values, [along.name])

        def columns(scopes: list[Scope]) -> None:
            for column in scopes:
                self._short_rows(column, places, short, along, statements)

        self._over_columns(scope, along, low, high, 1, columns)

    def _short_rows(
        self, column: Scope, places: Sequence[Scope], short: Axis, along: Axis, statements: Sequence[Store]
    ) -> None:
        """As many rows as lanes, from the one that `column` stands at."""
        rows = sorted_rows(self.kernel, column, [s.value for s in statements], short, along.name)
        values: list[list[Value]] = [[] for _ in statements]
        for number, place in enumerate(places):
            inside = Scope(place.frame, place, {along.name: column.values[along.name]}, along.name, column.mask)
            for load, vectors in rows.items():
                inside.define(load, vectors[number])
            for found, statement in zip(values, statements, strict=True):
                found.append(inside.vector(statement.value))
        first = Scope(column.frame, column, {short.name: i64(0)})
        for found, statement in zip(values, statements, strict=True):
            _store_rows(first, statement, found)


def _store_rows(first: Scope, statement: Store, values: Sequence[Value]) -> None:
    """Write rows, given as one vector for each place in them; `first` stands at the first place."""
    writer, lanes = first.writer, first.frame.lanes
    buffer = first.frame.buffers[statement.buffer]
    dtype = buffer.dtype
    start = first.place(buffer.name, statement.indices)
    for number, value in enumerate(join(writer, [to_memory(writer, value, dtype) for value in values])):
        at = writer.gep(start, dtype.llvm, i64(number * lanes))
        if first.mask is not None:
            mask = repeat(writer, first.mask, len(values), number)
            writer.masked_store(value, at, dtype.itemsize, mask)
        elif buffer.name in first.frame.streamed:
            writer.store(value, at, dtype.itemsize * lanes, ", !nontemporal !{i32 1}")
        else:
            writer.store(value, at, dtype.itemsize)
