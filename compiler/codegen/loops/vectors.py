"""Pointwise and column kernels: lanes along an outer axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.abi import Phase
from pierian.compiler.codegen.combine import State
from pierian.compiler.codegen.evaluate import Frame, Scope
from pierian.compiler.codegen.loops.gathered_rows import ask_for_rows, gathered_rows
from pierian.compiler.codegen.loops.plan import FEW_VECTORS, GRAIN, SHORT_ROWS, STRIPE, UNROLLED, even_share
from pierian.compiler.codegen.loops.rows import within
from pierian.compiler.codegen.loops.sorted_rows import sorted_rows
from pierian.compiler.codegen.loops.stripes import StripeEmitter
from pierian.compiler.codegen.side_by_side import evaluate_together
from pierian.compiler.codegen.turns import whole_end
from pierian.compiler.codegen.writer import FunctionWriter, Value, i64, is_literal, like
from pierian.compiler.dim import Dim, ceildiv, floordiv, maximum, product
from pierian.compiler.kernel.nodes import Axis, Reduce, Store
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.rows import groups
from pierian.compiler.schedule.spans import Span, spans


class VectorEmitter(StripeEmitter):
    """Adds loops whose lanes lie along an outer axis."""

    def _emit_vectors(self) -> Phase:
        """The last outer axis in vectors, the axes before it point by point."""
        kernel, plan = self.kernel, self.plan
        if not kernel.axes:
            return self._emit_single()
        last = kernel.axes[-1]
        before = kernel.axes[:-1]
        inner = product([axis.extent for statement in kernel.body[:1] for axis in statement.axes])
        if plan.kind == "columns" and self._streams_rows():
            grain = STRIPE
        elif plan.kind == "columns":
            width = plan.lanes * plan.unroll
            grain = width if not isinstance(inner, int) else max(1, GRAIN * 2 // max(inner, 1) // width) * width
        else:
            grain = even_share(last.extent, plan.grain, plan.lanes * plan.unroll)
        tasks: Dim = ceildiv(last.extent, grain) if not before else product([a.extent for a in before])
        per_task: Dim = 1
        if before:
            per_task = floordiv(plan.grain, maximum(last.extent * inner, 1)) + 1
            if isinstance(per_task, int):
                per_task = even_share(tasks, per_task)
            tasks = floordiv(tasks + per_task - 1, per_task)

        def write(writer: FunctionWriter, frame: Frame) -> None:
            scope = Scope(frame)
            begin, end = writer.arg("begin"), writer.arg("end")
            extent = scope.dim(last.extent)
            if not before:
                low = writer.mul(begin, scope.dim(grain))
                high = writer.minimum(writer.mul(end, scope.dim(grain)), extent)
                self._vector_loop(scope, last, low, high)
                return
            rows = scope.dim(product([axis.extent for axis in before]))
            low = writer.mul(begin, scope.dim(per_task))
            high = writer.minimum(writer.mul(end, scope.dim(per_task)), rows)
            asked = gathered_rows(kernel, before[0], last, self.target, self.dependencies) if len(before) == 1 else []

            def at_point(inside: Scope) -> None:
                if asked:
                    end = writer.sub(high, i64(1))
                    ask_for_rows(scope, asked, before[0], last, inside.values[before[0].name], end, self.target)
                self._vector_loop(inside, last, i64(0), extent)

            self._over_points(scope, before, low, high, at_point)

        function = self._function("f", write, plan.lanes, tasks)
        total = product([axis.extent for axis in kernel.axes]) * inner
        return Phase(function, tasks, isinstance(total, int) and total <= plan.grain)

    def _emit_single(self) -> Phase:
        """A kernel of one point: no axis at all."""

        def write(writer: FunctionWriter, frame: Frame) -> None:
            self._statements([Scope(frame)], self.kernel.body)

        return Phase(self._function("f", write, 1), 1, True)

    def _vector_loop(self, scope: Scope, axis: Axis, low: Value, high: Value) -> None:
        """`axis` from low to high: whole unrolled vectors first, then single masked ones."""
        plan = self.plan
        if plan.kind == "columns" and self._streams_rows():
            rows = groups(self.kernel.body)[0][0].axes[0].extent
            self._stripe_loop(scope, axis, low, high, (i64(0), scope.dim(rows)), self._finish_columns)
            return
        if plan.kind == "pointwise":
            self._pointwise(scope, axis, low, high)
            return
        self._over_columns(scope, axis, low, high, plan.unroll, lambda scopes: self._column_body(scope, scopes))

    def _pointwise(self, scope: Scope, axis: Axis, low: Value, high: Value) -> None:
        """Store the values that statements have at the points of an axis, span by span where they ask where they stand."""
        values = tuple(statement.value for statement in self.kernel.body)
        for span in spans(values, [axis] * len(values)) or [Span(0, axis.extent, values)]:
            inside = Scope(scope.frame, scope)
            begin, end = within(inside, low, high, span, axis)
            inside.hoist(span.values, [axis.name])
            self._over_columns(inside, axis, begin, end, self.plan.unroll, partial(self._store_all, span.values))

    def _over_columns(
        self, scope: Scope, axis: Axis, low: Value, high: Value, count: int, body: Callable[[list[Scope]], None]
    ) -> None:
        """`axis` from low to high in vectors: `count` of them at a time, then single ones, masked."""
        writer, lanes = scope.writer, self.plan.lanes
        width = lanes * count

        def vectors(at: Value, number: int) -> None:
            starts = [writer.add(at, i64(lanes * k)) for k in range(number)]
            body([Scope(scope.frame, scope, {axis.name: start}, axis.name) for start in starts])

        def rest(at: Value, stored: int | None = None) -> None:
            tail = Scope(scope.frame, scope, {axis.name: at}, axis.name)
            tail.mask = tail.tail_mask(at, high)
            tail.stored = stored
            body([tail])

        if is_literal(low) and is_literal(high):
            length, begin = int(high.text) - int(low.text), int(low.text)
            whole, left = divmod(max(length, 0), lanes)
            done = 0
            if length >= 2 * width:
                done = whole // count * count
                with writer.loop(low, i64(begin + lanes * done), width) as loop:
                    vectors(loop.index, count)
            for first in range(done, whole, count):  # the few that are left: no loops
                vectors(i64(begin + lanes * first), min(count, whole - first))
            if left:
                # Masked stores take narrow vectors long.
                rest(i64(begin + lanes * whole), None if self.target.is_wide else left)
            return
        middle = whole_end(writer, low, high, width)
        with writer.loop(low, middle, width) as loop:
            vectors(loop.index, count)
        if len(self.kernel.axes) > 1:  # a row that may be short, and not the end of the last task
            last = whole_end(writer, low, high, lanes)
            with writer.loop(middle, last, lanes) as loop:
                vectors(loop.index, 1)
            middle = last
        with writer.loop(middle, high, lanes) as loop:
            rest(loop.index)

    def _store_all(self, values: Sequence[Scalar], scopes: list[Scope]) -> None:
        for statement, value in zip(self.kernel.body, values, strict=True):
            assert isinstance(statement, Store)
            evaluate_together(scopes, value)
            for scope in scopes:
                scope.store(statement.buffer, statement.indices, value)

    def _column_body(self, outer: Scope, scopes: list[Scope]) -> None:
        """Reductions over inner axes with one lane for each outer point, then the stores."""
        for group in groups(self.kernel.body):
            if isinstance(group[0], Reduce):
                reduces = [s for s in group if isinstance(s, Reduce)]
                for scope, states in zip(scopes, self._walk(outer, scopes, reduces, None), strict=True):
                    for reduce, state in zip(reduces, states, strict=True):
                        self._define(scope, reduce, state)
            else:
                for statement in group:
                    assert isinstance(statement, Store)
                    for scope in scopes:
                        scope.store(statement.buffer, statement.indices, statement.value)

    def _walk(
        self,
        outer: Scope,
        scopes: list[Scope],
        reduces: Sequence[Reduce],
        span: tuple[Value, Value] | None,
    ) -> list[list[State]]:
        """Reductions walked point by point over their inner axes; `span` cuts the slowest of them. Sums of floats over several axes
        are sums of sums over the fastest: shorter chains of additions lose less to rounding."""
        writer = outer.writer
        lanes = self.plan.lanes
        points = product([axis.extent for axis in reduces[0].axes])
        # Steps are points along the one reduced axis; a block has few of them.
        fits = span is not None or (isinstance(points, int) and points < 1 << 31)
        base = span[0] if span is not None else i64(0)

        def start(reduce: Reduce) -> State:
            dtype = reduce.value.dtype
            return combine.start(reduce.combiner, dtype, lanes, combine.number_type(dtype, fits))

        unrolled = span is None and isinstance(points, int) and points * len(scopes) <= UNROLLED
        copies = 1 if unrolled or any(r.combiner.startswith("arg") for r in reduces) else self._copies(scopes, reduces)
        sums = all(r.combiner == "sum" and r.value.dtype.is_float for r in reduces)
        starts = [part for _ in range(copies) for _ in scopes for r in reduces for part in start(r)]
        for scope in scopes:
            scope.hoist([r.value for r in reduces], [axis.name for r in reduces for axis in r.axes])

        def nest(depth: int, inside: list[Scope], carried: list[Value]) -> list[Value]:
            axes = [reduce.axes[depth] for reduce in reduces] if depth < len(reduces[0].axes) else []
            if not axes:
                return self._advance_all(inside, reduces, carried, base)

            def at(point: Value, states: list[Value]) -> list[Value]:
                return nest(depth + 1, [Scope(s.frame, s, {axis.name: point for axis in axes}) for s in inside], states)

            extent = axes[0].extent
            if unrolled and isinstance(extent, int):
                known = [self._known_rows(scope, reduces) for scope in inside] if 0 < extent <= SHORT_ROWS else []
                for point in range(extent):
                    points = [Scope(s.frame, s, {axis.name: i64(point) for axis in axes}) for s in inside]
                    for scope, rows in zip(points, known, strict=bool(known)):
                        for load, vectors in rows.items():
                            scope.define(load, vectors[point])
                    carried = nest(depth + 1, points, carried)
                return carried
            low, high = (i64(0), outer.dim(extent)) if depth or span is None else span
            if depth < len(reduces[0].axes) - 1:
                with writer.loop(low, high, 1, carried) as loop:
                    loop.next = at(loop.index, loop.carried)
                return loop.results
            before, afresh = carried, sums and depth > 0
            if afresh:
                carried = starts
            each = len(carried) // copies
            middle = whole_end(writer, low, high, copies) if copies > 1 else low
            if copies > 1:
                with writer.loop(low, middle, copies, carried) as loop:
                    for k in range(copies):
                        loop.next += at(writer.add(loop.index, i64(k)), loop.carried[k * each : (k + 1) * each])
                carried = loop.results
            with writer.loop(middle, high, 1, carried[:each]) as loop:
                loop.next = at(loop.index, loop.carried)
            found = loop.results + carried[each:]
            return [writer.op("fadd", one, more) for one, more in zip(before, found, strict=True)] if afresh else found

        def placed(reduce: Reduce, state: State) -> State:
            if not reduce.combiner.startswith("arg"):
                return state
            wide = writer.cast("sext", state[1], like(state[1].type, "i64"))
            return [state[0], writer.op("add", wide, writer.splat(base, lanes))]

        flat = iter(nest(0, scopes, starts))
        walked = [[[next(flat) for _ in start(r)] for _ in scopes for r in reduces] for _ in range(copies)]
        merged = iter(
            [
                combine.merge(writer, r.combiner, r.value.dtype, [copy[i] for copy in walked])
                for i, r in enumerate([r for _ in scopes for r in reduces])
            ]
        )
        return [[placed(r, next(merged)) for r in reduces] for _ in scopes]

    def _known_rows(self, column: Scope, reduces: Sequence[Reduce]) -> dict[Scalar, list[Value]]:
        """What is read of whole rows of a few elements, place by place."""
        along = self.kernel.axes[-1].name
        found: dict[Scalar, list[Value]] = {}
        for reduce in reduces:
            if len(reduce.axes) == 1:
                found |= sorted_rows(self.kernel, column, [reduce.value], reduce.axes[0], along)
        return found

    def _copies(self, scopes: Sequence[Scope], reduces: Sequence[Reduce]) -> int:
        """Points of the innermost axis whose states are kept apart, a power of two: so many that additions need not wait for
        each other."""
        copies = 1
        while 2 * copies * len(scopes) * len(reduces) <= FEW_VECTORS:
            copies *= 2
        return copies

    def _advance_all(
        self, scopes: list[Scope], reduces: Sequence[Reduce], carried: list[Value], base: Value
    ) -> list[Value]:
        following: list[Value] = []
        remaining = iter(carried)
        for scope in scopes:
            for reduce in reduces:
                state = [next(remaining) for _ in combine.state_types(reduce.combiner, reduce.value.dtype, 1)]
                step = scope.writer.sub(scope.values[reduce.axes[0].name], base) if len(state) > 1 else base
                value = self._element(scope, reduce, state, step)
                following += combine.advance(scope.writer, reduce.combiner, reduce.value.dtype, state, value)
        return following
