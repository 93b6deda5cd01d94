"""Row kernels: every outer point walks its inner axes, the last of them in vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.abi import PHASE_PARAMETERS, Phase
from pierian.compiler.codegen.combine import State
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.loops.plan import (
    GRAIN,
    STRETCH,
    Plan,
)
from pierian.compiler.codegen.streaming import streamed_buffers, write_both_ways
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, element_of, i64, is_literal, like
from pierian.compiler.dim import Dim, floordiv, maximum, product
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel, Reduce, Statement, Store
from pierian.compiler.schedule.rows import cost, groups
from pierian.compiler.target.features import Target


class RowEmitter:
    """Loops over outer points, each of which walks its inner axes in vectors."""

    def __init__(self, kernel: Kernel, name: str, plan: Plan, target: Target) -> None:
        self.kernel = kernel
        self.isa = target.isa
        self.name = name
        self.plan = plan
        self.streamed = self._streamed(target)
        self.dependencies = Dependencies()
        self.texts: list[str] = []
        self.declarations: set[str] = set()

    def _streamed(self, target: Target) -> frozenset[str]:
        """Results stored past the caches: those of whole vectors one after the other."""
        if self.plan.kind == "pointwise":
            along = frozenset({self.plan.vector_axis})
        elif self.plan.kind == "rows":
            along = frozenset(s.axes[-1].name for s in self.kernel.body if s.axes)
        else:
            return frozenset()
        return streamed_buffers(self.kernel, self.plan.lanes, along, target)

    def _function(self, suffix: str, write: Callable[[FunctionWriter, Frame], None], lanes: int) -> str:
        name = f"{self.name}_{suffix}"
        writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=self.isa)
        frame = Frame(writer, self.kernel, lanes, self.dependencies)
        streamed = self.streamed if lanes == self.plan.lanes else frozenset()
        write_both_ways(writer, frame, streamed, lambda: write(writer, frame))
        writer.ret()
        self.texts.append(writer.finish())
        self.declarations |= writer.declarations
        return name

    def _over_points(
        self, scope: Scope, axes: Sequence[Axis], begin: Value, end: Value, body: Callable[[Scope], None]
    ) -> None:
        """A loop over flat numbers of points [begin, end) of `axes`, with the axes' values in scope."""
        writer = scope.writer
        if not axes:
            with writer.loop(begin, end):
                body(Scope(scope.frame, scope))
            return
        for axis in axes:
            scope.dim(axis.extent)
        with writer.loop(begin, end) as loop:
            body(Scope(scope.frame, scope, unravel(scope, loop.index, axes)))

    def _emit_rows(self) -> Phase:
        kernel = self.kernel
        row = product([axis.extent for axis in next(s.axes for s in kernel.body if s.axes)])
        points = product([axis.extent for axis in kernel.axes])
        per_task = floordiv(GRAIN, maximum(row, 1)) + 1
        tasks = floordiv(points + per_task - 1, per_task)

        def write(writer: FunctionWriter, frame: Frame) -> None:
            scope = Scope(frame)
            rows = scope.dim(points)
            low = writer.mul(writer.arg("begin"), scope.dim(per_task))
            high = writer.minimum(writer.mul(writer.arg("end"), scope.dim(per_task)), rows)
            self._over_points(
                scope, kernel.axes, low, high, lambda inside: self._statements(inside, kernel.body, self.plan.lanes)
            )

        total = points * row
        return Phase(self._function("f", write, self.plan.lanes), tasks, isinstance(total, int) and total <= GRAIN)

    def _statements(self, scope: Scope, body: Sequence[Statement], lanes: int) -> None:
        """Run statements in order at the point a scope stands at."""
        for group in groups(body):
            if group[0].axes:
                self._row_pass(scope, group, None)
            else:
                for statement in group:
                    if isinstance(statement, Reduce):
                        self._define(scope, statement, self._reduce_one(scope, statement))
                    else:
                        scope.store(statement.buffer, statement.indices, statement.value)

    def _reduce_one(self, scope: Scope, reduce: Reduce) -> State:
        """A reduction over no axes: its one element."""
        value = scope.get(reduce.value)
        return [value, i64(0)] if reduce.combiner.startswith("arg") else [value]

    def _row_pass(self, scope: Scope, group: Sequence[Statement], span: tuple[Value, Value] | None) -> None:
        """One pass over the inner axes of a group; defines the results of its reductions in `scope`."""
        states = self._row_states(scope, group, span)
        reduces = [statement for statement in group if isinstance(statement, Reduce)]
        for reduce, state in zip(reduces, states, strict=True):
            self._define(scope, reduce, state)

    def _row_states(self, scope: Scope, group: Sequence[Statement], span: tuple[Value, Value] | None) -> list[State]:
        """The final scalar states of the group's reductions. `span` cuts the slowest inner axis."""
        writer = scope.writer
        lanes = scope.frame.lanes
        reduces = [statement for statement in group if isinstance(statement, Reduce)]
        unroll = self._row_unroll(group)
        scope.hoist([s.value for s in group], [axis.name for s in group for axis in s.axes])
        starts = [part for _ in range(unroll) for r in reduces for part in self._start(r, lanes)]
        depth_last = len(group[0].axes) - 1

        def nest(depth: int, inside: Scope, carried: list[Value]) -> list[Value]:
            axes = [statement.axes[depth] for statement in group]
            low, high = (i64(0), inside.dim(axes[0].extent)) if depth or span is None else span
            if depth == depth_last:
                return self._row_vectors(inside, group, reduces, axes, low, high, carried, unroll)
            with writer.loop(low, high, 1, carried) as loop:
                values = {axis.name: loop.index for axis in axes}
                loop.next = nest(depth + 1, Scope(inside.frame, inside, values), loop.carried)
            return loop.results

        flat = iter(nest(0, scope, starts))
        by_copy = [[[next(flat) for _ in self._start(r, lanes)] for r in reduces] for _ in range(unroll)]
        final = []
        for position, reduce in enumerate(reduces):
            dtype = reduce.value.dtype
            states = [copy[position] for copy in by_copy]
            if reduce.combiner.startswith("arg"):
                states += [[next(flat), next(flat)]]
                final.append(self._first_in_row(scope, reduce, states, span, unroll))
            else:
                merged = combine.merge(writer, reduce.combiner, dtype, states)
                final.append(combine.across_lanes(writer, reduce.combiner, dtype, merged))
        return final

    def _start(self, reduce: Reduce, lanes: int) -> State:
        """The state of one vector before a row; steps are counted in vectors, so 32 bits hold their number."""
        return combine.start(reduce.combiner, reduce.value.dtype, lanes, combine.number_type(reduce.value.dtype, True))

    def _first_in_row(
        self, scope: Scope, reduce: Reduce, states: list[State], span: tuple[Value, Value] | None, unroll: int
    ) -> State:
        """The extreme of a row and its position, from the states of the unrolled vectors and of those left over."""
        writer, lanes = scope.writer, scope.frame.lanes
        extent = reduce.axes[0].extent
        low, high = span if span is not None else (i64(0), scope.dim(extent))
        kind = "i32" if isinstance(extent, int) and extent < 1 << 31 else "i64"
        begins = [(writer.add(low, i64(lanes * copy)), lanes * unroll) for copy in range(unroll)]
        begins.append((_whole_end(writer, low, high, lanes * unroll), lanes))
        placed = []
        for (begin, stride), (value, number) in zip(begins, states, strict=True):
            change = "trunc" if kind == "i32" else "sext"
            first = writer.splat(begin if kind == "i64" else writer.cast(change, begin, kind), lanes)
            same = element_of(number.type) == kind
            steps = number if same else writer.cast(change, number, like(number.type, kind))
            moved = writer.op("mul", steps, constant(stride, kind, lanes))
            placed.append([value, writer.op("add", moved, writer.op("add", first, writer.iota(kind, lanes)))])
        return combine.first_extreme(writer, reduce.combiner, reduce.value.dtype, placed)

    def _row_unroll(self, group: Sequence[Statement]) -> int:
        work = sum(cost(statement.value) for statement in group)
        unroll = 8 if work < 4 else 4 if work < 40 else 2
        extent = group[0].axes[-1].extent
        if isinstance(extent, int):
            while unroll > 1 and extent < self.plan.lanes * unroll:
                unroll //= 2
        return unroll

    def _row_vectors(
        self,
        scope: Scope,
        group: Sequence[Statement],
        reduces: Sequence[Reduce],
        axes: Sequence[Axis],
        low: Value,
        high: Value,
        carried: list[Value],
        unroll: int,
    ) -> list[Value]:
        """The last inner axis in vectors: unrolled whole ones, then masked single ones into the first states. Long sums of floats
        are sums of stretches: shorter chains of additions lose less to rounding."""
        writer, lanes = scope.writer, scope.frame.lanes
        scope.hoist([s.value for s in group], [axis.name for axis in axes])
        width = lanes * unroll
        middle = _whole_end(writer, low, high, width)
        each = len(carried) // unroll

        def scope_at(index: Value) -> Scope:
            inside = Scope(scope.frame, scope, {axis.name: index for axis in axes})
            inside.vector_axes = inside.vector_axes | {axis.name for axis in axes}
            return inside

        def whole(begin: Value, end: Value, entering: list[Value]) -> list[Value]:
            with writer.loop(begin, end, width, entering) as loop:
                scopes = [scope_at(writer.add(loop.index, i64(lanes * k))) for k in range(unroll)]
                step = writer.op("lshr", writer.sub(loop.index, low), i64(width.bit_length() - 1))
                loop.next = self._row_step(scopes, group, reduces, loop.carried, step)
            return loop.results

        if _in_stretches(reduces, axes[0].extent, width):
            starts = [part for _ in range(unroll) for r in reduces for part in self._start(r, lanes)]
            kinds = [r for _ in range(unroll) for r in reduces]
            with writer.loop(low, middle, STRETCH * width, carried) as loop:
                end = writer.minimum(writer.add(loop.index, i64(STRETCH * width)), middle)
                loop.next = [
                    combine.combine(writer, r.combiner, r.value.dtype, [before], [part])[0]
                    for r, before, part in zip(kinds, loop.carried, whole(loop.index, end, starts), strict=True)
                ]
            so_far = loop.results
        else:
            so_far = whole(low, middle, carried)
        # What is left over goes into the first states; positions are counted anew, in states of their own.
        positions = [r for r in reduces if r.combiner.startswith("arg")]
        behind = [part for r in positions for part in self._start(r, lanes)]
        if middle.text == high.text:
            return so_far + behind
        first, rest = so_far[:each], so_far[each:]
        parts = iter(first)
        pairs = [(r, [next(parts) for _ in self._start(r, lanes)]) for r in reduces]
        entering = [p for r, state in pairs for p in (self._start(r, lanes) if r in positions else state)]
        with writer.loop(middle, high, lanes, entering) as tail:
            inside = scope_at(tail.index)
            inside.mask = inside.tail_mask(tail.index, high) if lanes > 1 else None
            step = writer.op("lshr", writer.sub(tail.index, middle), i64(lanes.bit_length() - 1))
            tail.next = self._row_step([inside], group, reduces, tail.carried, step)
        results = iter(tail.results)
        ended = [(r, state, [next(results) for _ in state]) for r, state in pairs]
        merged = [part for r, before, after in ended for part in (before if r in positions else after)]
        behind = [part for r, _, after in ended if r in positions for part in after]
        return merged + rest + behind

    def _row_step(
        self,
        scopes: list[Scope],
        group: Sequence[Statement],
        reduces: Sequence[Reduce],
        carried: list[Value],
        step: Value,
    ) -> list[Value]:
        """The elements of one step into the states; `step` is its number."""
        for statement in group:
            for scope in scopes:
                scope.vector(statement.value)
        following: list[Value] = []
        remaining = iter(carried)
        for scope in scopes:
            for reduce in reduces:
                dtype = reduce.value.dtype
                state = [next(remaining) for _ in self._start(reduce, 1)]
                value = self._element(scope, reduce, state, step)
                advanced = combine.advance(scope.writer, reduce.combiner, dtype, state, value)
                if scope.mask is not None:
                    advanced = [scope.writer.select(scope.mask, a, b) for a, b in zip(advanced, state, strict=True)]
                following += advanced
        for statement in group:
            if isinstance(statement, Store):
                for scope in scopes:
                    scope.store(statement.buffer, statement.indices, statement.value)
        return following

    def _element(self, scope: Scope, reduce: Reduce, state: State, step: Value) -> State:
        """What one vector of elements adds to a state: itself, and for argmax/argmin the step's number."""
        value = scope.vector(reduce.value)
        if len(state) == 1:
            return [value]
        kind = element_of(state[1].type)
        narrow = step if kind == "i64" else scope.writer.cast("trunc", step, kind)
        return [value, scope.writer.splat(narrow, scope.frame.lanes)]

    def _define(self, scope: Scope, reduce: Reduce, state: State) -> None:
        dtype = combine.result_dtype(reduce.combiner, reduce.value.dtype)
        scope.define(ir.reduced(reduce.name, dtype), combine.result(reduce.combiner, state))


def _in_stretches(reduces: Sequence[Reduce], extent: Dim, width: int) -> bool:
    """True for reductions with sums of floats, over rows that are not known to be short."""
    sums = any(r.combiner == "sum" and r.value.dtype.is_float for r in reduces)
    plain = not any(r.combiner.startswith("arg") for r in reduces)
    return sums and plain and not (isinstance(extent, int) and extent <= STRETCH * width)


def _whole_end(writer: FunctionWriter, low: Value, high: Value, width: int) -> Value:
    """Where the whole steps of `width` elements from `low` on end."""
    count = writer.sub(high, low)
    if is_literal(count):
        return writer.add(low, i64(int(count.text) // width * width))
    return writer.add(low, writer.op("sub nsw", count, writer.op("srem", count, i64(width))))
