"""Reductions with few results, cut into blocks: partial results in a first phase, combined in order in a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.abi import KernelCode, Phase
from pierian.compiler.codegen.combine import State
from pierian.compiler.codegen.evaluate import Frame, Scope
from pierian.compiler.codegen.loops.plan import (
    BLOCK,
    FEW_OUTER,
    FEW_ROWS,
    FEW_VECTORS,
    LONG_BLOCK,
    LONG_STRETCH,
    MANY_BLOCKS,
    STRETCH,
    STRIPE,
    fitting,
)
from pierian.compiler.codegen.loops.short_rows import ShortRowEmitter
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, element_of, i64, like
from pierian.compiler.dim import Dim, ceildiv, floordiv, maximum, product
from pierian.compiler.kernel.nodes import Reduce, Statement
from pierian.compiler.schedule.rows import groups


class BlockEmitter(ShortRowEmitter):
    """Adds reductions cut into blocks, and chooses among the nests.

    What blocks leave lies in the launch's shared memory: for each block the parts of the states one after the other, each of them as
    one array over the kernel's outer points.
    """

    def emit(self) -> KernelCode:
        split = self._split()
        if split is not None:
            phases, shared = self._emit_split(*split)
        else:
            shared = 0
            nests = {"rows": self._emit_rows, "squares": self._emit_squares, "short rows": self._emit_short_rows}
            phases = [nests.get(self.plan.kind, self._emit_vectors)()]
        plan = self.plan
        side = f", {plan.together} rows {'abreast' if plan.abreast else 'side by side'}" if plan.together > 1 else ""
        axes = " x ".join(str(axis.extent) for axis in self.kernel.axes) or "1"
        note = f"{plan.kind} over {axes}, {plan.lanes} lanes x {plan.unroll}{side}, tasks {phases[0].tasks}"
        if split is not None:
            note += f", reduction cut into blocks of {split[1]}"
        if self.kept:
            note += f", {len(self.kept)} of its values kept between passes"
        if self.next_rows:
            note += ", next rows asked for"
        if self.streamed:
            note += f", {', '.join(sorted(self.streamed))} stored past the caches"
        return KernelCode("\n".join(self.texts), frozenset(self.declarations), tuple(phases), shared, 0, (note,))

    def _split(self) -> tuple[Sequence[Reduce], Dim, Dim] | None:
        """The first pass of a kernel with few outer points and a long reduction: its reductions, the points of one
        block along their slowest axis, and the number of blocks."""
        kernel = self.kernel
        group = groups(kernel.body)[0] if kernel.body else []
        reduces = [statement for statement in group if isinstance(statement, Reduce)]
        if not reduces or len(reduces) != len(group) or self.plan.kind in ("pointwise", "squares", "short rows"):
            return None
        points = product([axis.extent for axis in kernel.axes])
        axes = reduces[0].axes
        if not axes or any(statement.axes for statement in kernel.body[len(group) :]):
            return None
        length = product([axis.extent for axis in axes])
        columns = self.plan.kind == "columns"
        # Columns that are stripes for many tasks need no blocks.
        most = STRIPE * FEW_OUTER if columns and len(kernel.axes) == 1 else STRIPE if columns else FEW_OUTER
        inner = product([axis.extent for axis in axes[1:]])
        if not columns and self._jumps(points, inner):
            return reduces, 1, axes[0].extent
        if not isinstance(points, int) or points > most:
            return None
        if isinstance(length, int) and length * points <= 2 * BLOCK:
            return None
        elements = BLOCK
        if isinstance(length, int) and not columns:
            elements = max(BLOCK, min(LONG_BLOCK, length * points // MANY_BLOCKS))
        size = maximum(
            floordiv(elements - 1, maximum(inner * (points if columns else 1), 1)) + 1, FEW_ROWS if columns else 1
        )
        if columns and isinstance(length, int) and isinstance(size, int) and length < 2 * size:
            return None
        return reduces, size, floordiv(axes[0].extent + size - 1, size)

    def _jumps(self, points: Dim, inner: Dim) -> bool:
        """Whether rows lie in long stretches with those of other points between them, beyond the near caches (sums over an image and
        the batch, channel by channel): then memory is read from its beginning to its end, a partial result for each stretch."""
        axes = groups(self.kernel.body)[0][0].axes
        return (
            len(axes) > 1
            and isinstance(points, int)
            and isinstance(inner, int)
            and 1 < points <= STRIPE
            and inner >= LONG_STRETCH
            and not self.is_near
        )

    def _emit_split(self, reduces: Sequence[Reduce], size: Dim, blocks: Dim) -> tuple[list[Phase], Dim]:
        kernel, lanes = self.kernel, self.plan.lanes
        points = product([axis.extent for axis in kernel.axes])
        columns = self.plan.kind == "columns"

        def partial(writer: FunctionWriter, frame: Frame) -> None:
            scope = Scope(frame)
            length = scope.dim(reduces[0].axes[0].extent)
            scope.dim(points)
            with writer.loop(writer.arg("begin"), writer.arg("end")) as loop:
                low = writer.mul(loop.index, scope.dim(size))
                span = low, writer.minimum(writer.add(low, scope.dim(size)), length)
                block = Scope(frame, scope)
                if columns:
                    self._partial_columns(block, reduces, span, loop.index)
                else:
                    self._partial_rows(block, reduces, span, loop.index)

        def final(writer: FunctionWriter, frame: Frame) -> None:
            scope = Scope(frame)
            total = scope.dim(blocks)
            scope.dim(points)
            before, last = (kernel.axes[:-1], kernel.axes[-1]) if columns else (kernel.axes, None)
            rest = kernel.body[len(reduces) :]

            def at_point(inside: Scope) -> None:
                if last is None:
                    self._combine_blocks([inside], reduces, rest, total)
                else:
                    extent = inside.dim(last.extent)
                    self._over_columns(
                        inside, last, i64(0), extent, fitting(kernel, last.name, lanes, FEW_VECTORS // 2),
                        lambda found: self._combine_blocks(found, reduces, rest, total),
                    )  # fmt: skip

            self._over_points(scope, before, i64(0), scope.dim(product([a.extent for a in before])), at_point)

        phases = [
            Phase(self._function("partial", partial, lanes), blocks),
            Phase(self._function("final", final, lanes if columns else 1), 1, True),
        ]
        return phases, blocks * self._block_bytes(reduces)

    # --- what a block leaves -----------------------------------------------------------------------------------------

    def _parts(self, reduces: Sequence[Reduce]) -> list[tuple[str, int]]:
        """The parts of the states: the type of an element in memory, and where their array begins, in bytes for each point."""
        found, begin = [], 0
        for reduce in reduces:
            for type_ in combine.state_types(reduce.combiner, reduce.value.dtype, 1):
                found.append(("i8" if type_ == "i1" else type_, begin))
                begin += _BYTES[found[-1][0]]
        return found

    def _block_bytes(self, reduces: Sequence[Reduce]) -> Dim:
        *_, (type_, begin) = self._parts(reduces)
        whole = (begin + _BYTES[type_]) * product([axis.extent for axis in self.kernel.axes])
        return ceildiv(whole, _BLOCK_ALIGNMENT) * _BLOCK_ALIGNMENT

    def _places(self, scope: Scope, reduces: Sequence[Reduce], block: Value) -> list[Value]:
        """Where the parts of a block's states lie that belong to the point, or the first lane, a scope stands at."""
        writer = scope.writer
        number = i64(0)
        for axis in self.kernel.axes:
            number = writer.add(writer.mul(number, scope.dim(axis.extent)), scope.values[axis.name])
        count = scope.dim(product([axis.extent for axis in self.kernel.axes]))
        base = writer.mul(block, scope.dim(self._block_bytes(reduces)))
        start = writer.gep(scope.frame.parameters.shared, "i8", base)
        return [
            writer.gep(writer.gep(start, "i8", writer.mul(count, i64(begin))), type_, number)
            for type_, begin in self._parts(reduces)
        ]

    def _write_states(self, scope: Scope, reduces: Sequence[Reduce], block: Value, states: Sequence[State]) -> None:
        writer = scope.writer
        values = [part for state in states for part in state]
        for place, value in zip(self._places(scope, reduces, block), values, strict=True):
            stored = writer.cast("zext", value, like(value.type, "i8")) if element_of(value.type) == "i1" else value
            if scope.mask is None:
                writer.store(stored, place, 1)
                continue
            writer.masked_store(stored, place, 1, scope.mask)

    def _read_states(self, scope: Scope, reduces: Sequence[Reduce], block: Value) -> list[State]:
        writer, lanes = scope.writer, scope.frame.lanes
        places = iter(self._places(scope, reduces, block))
        found = []
        for reduce in reduces:
            state = []
            for type_ in combine.state_types(reduce.combiner, reduce.value.dtype, lanes):
                stored = like(type_, "i8") if element_of(type_) == "i1" else type_
                place = next(places)
                if scope.mask is None:
                    value = writer.load(place, stored, 1)
                else:
                    value = writer.masked_load(place, stored, 1, scope.mask)
                if stored != type_:
                    value = writer.cmp("icmp ne", value, constant(0, "i8", lanes))
                state.append(value)
            found.append(state)
        return found

    # --- the two phases ----------------------------------------------------------------------------------------------

    def _partial_rows(self, scope: Scope, reduces: Sequence[Reduce], span: tuple[Value, Value], block: Value) -> None:
        def at_point(inside: Scope) -> None:
            self._write_states(inside, reduces, block, self._row_states(inside, reduces, span))

        points = scope.dim(product([axis.extent for axis in self.kernel.axes]))
        self._over_points(scope, self.kernel.axes, i64(0), points, at_point)

    def _partial_columns(
        self, scope: Scope, reduces: Sequence[Reduce], span: tuple[Value, Value], block: Value
    ) -> None:
        """Lanes along the last outer axis. Few columns wait in registers, more of them in the first cache, so that rows are read
        from their beginning to their end."""
        *before, last = self.kernel.axes
        extent = scope.dim(last.extent)
        count = fitting(self.kernel, last.name, self.plan.lanes, max(1, FEW_VECTORS // len(reduces)))

        def leave(column: Scope, states: Sequence[State]) -> None:
            self._write_states(column, reduces, block, states)

        def walk(outer: Scope) -> Callable[[list[Scope]], None]:
            def columns(found: list[Scope]) -> None:
                for column, states in zip(found, self._walk(outer, found, reduces, span), strict=True):
                    leave(column, states)

            return columns

        def at_point(inside: Scope) -> None:
            if self._streams_rows(FEW_VECTORS + 1):
                self._stripe_loop(inside, last, i64(0), extent, span, leave)
            else:
                self._over_columns(inside, last, i64(0), extent, count, walk(inside))

        self._over_points(scope, before, i64(0), scope.dim(product([axis.extent for axis in before])), at_point)

    def _combine_blocks(
        self, scopes: list[Scope], reduces: Sequence[Reduce], rest: Sequence[Statement], total: Value
    ) -> None:
        """The states that blocks have left, in the order of the blocks, and what is done with the results."""
        writer, lanes = scopes[0].writer, scopes[0].frame.lanes
        starts = [part for _ in scopes for r in reduces for part in combine.identity(r.combiner, r.value.dtype, lanes)]
        kinds = [r for _ in scopes for r in reduces]
        # Blocks in stretches, as in a row: a sum of sums loses less to rounding.
        with writer.loop(i64(0), total, STRETCH, starts) as loop:
            end = writer.minimum(writer.add(loop.index, i64(STRETCH)), total)
            with writer.loop(loop.index, end, 1, starts) as stretch:
                found = [state for scope in scopes for state in self._read_states(scope, reduces, stretch.index)]
                stretch.next = _joined(writer, kinds, stretch.carried, [part for state in found for part in state])
            loop.next = _joined(writer, kinds, loop.carried, stretch.results)
        results = iter(loop.results)
        for scope in scopes:
            for reduce in reduces:
                size = len(combine.state_types(reduce.combiner, reduce.value.dtype, 1))
                self._define(scope, reduce, [next(results) for _ in range(size)])
        self._statements(scopes, rest)


def _joined(
    writer: FunctionWriter, reduces: Sequence[Reduce], before: Sequence[Value], behind: Sequence[Value]
) -> list[Value]:
    """States of reductions, and those of later elements, as one; each a flat list."""
    left, right = iter(before), iter(behind)
    joined: list[Value] = []
    for reduce in reduces:
        dtype = reduce.value.dtype
        size = len(combine.state_types(reduce.combiner, dtype, 1))
        states = ([next(side) for _ in range(size)] for side in (left, right))
        joined += combine.combine(writer, reduce.combiner, dtype, *states)
    return joined


_BYTES = {"i8": 1, "i32": 4, "float": 4, "i64": 8, "double": 8}
# A block's states begin at a cache line: two threads do not write to the same.
_BLOCK_ALIGNMENT = 64
