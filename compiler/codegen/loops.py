"""Loop kernels: pointwise work and rows, as vector loops over ranges of tasks.

The nest is chosen by shape alone. `pointwise`: no inner axes, one axis is vectorized. `rows`: every outer point walks
its inner axes, the last of them in vectors. `columns`: inner axes are walked one by one while the lanes lie along the
last outer axis (sums over leading axes). A reduction with few outer points is cut into blocks: a first phase leaves one
partial result for each block, a second combines them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.access import address, step
from pierian.compiler.codegen.combine import State
from pierian.compiler.codegen.evaluate import Dependencies, Frame, Scope
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dim import Dim, ceildiv, floordiv, maximum, product
from pierian.compiler.elementary import expand
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Kernel, Reduce, Statement, Store
from pierian.compiler.kernel.scalar import load_parts
from pierian.compiler.schedule.collapse import collapse
from pierian.compiler.schedule.rows import cost, groups, keep_rows
from pierian.compiler.target.features import Target

# Elements of work in one task; smaller kernels stay on the calling thread.
GRAIN = 16384
# Elements in one block of a reduction that is cut up because it has too few outer points to share out.
BLOCK = 32768
# Outer points below which a long reduction is cut into blocks.
FEW_OUTER = 16
# Long rows are read ROWS at a time in stripes of so many columns, sums waiting in the first cache: memory is fastest when few
# streams run far.
ROWS = 8
STRIPE = 2048
# Results larger than this many bytes are written around the caches.
STREAM_BYTES = 24 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """The choices for one kernel.

    Attributes:
        kind: pointwise, rows or columns.
        vector_axis: name of the vectorized outer axis (pointwise, columns); rows vectorize their own last axis.
        lanes: elements in a vector.
        unroll: vectors in flight.
    """

    kind: str
    vector_axis: str
    lanes: int
    unroll: int
    streaming: bool = False


def emit_loop(kernel: Kernel, name: str, target: Target) -> KernelCode:
    """Native code of a loop kernel."""
    kernel = collapse(keep_rows(kernel))
    values = expand([statement.value for statement in kernel.body])
    body = tuple(replace(s, value=value) for s, value in zip(kernel.body, values, strict=True))
    kernel = replace(kernel, body=body)
    plan = choose_plan(kernel, target)
    return _LoopEmitter(_vector_axis_last(kernel, plan), name, plan, target.isa).emit()


def choose_plan(kernel: Kernel, target: Target) -> Plan:
    """Which axis becomes lanes, how many lanes, how many vectors at once."""
    floats = [b.dtype.bits for b in kernel.buffers if b.dtype.is_float]
    lanes = target.lanes(max(floats or [b.dtype.bits for b in kernel.buffers if not b.dtype.is_bool] or [32]))
    work = sum(cost(statement.value) for statement in kernel.body)
    unroll = 4 if work < 24 else 2 if work < 80 else 1
    if not any(statement.axes for statement in kernel.body):
        axis = _contiguous_axis(kernel, [a.name for a in kernel.axes])
        return Plan("pointwise", axis, lanes, unroll, _streams(kernel))
    inner = _last_inner(kernel)
    outer = kernel.axes[-1].name if kernel.axes else ""
    names = [axis.name for statement in kernel.body for axis in statement.axes[-1:]]
    reduces_only = all(isinstance(s, Reduce) or not s.axes for s in kernel.body)
    if outer and reduces_only and inner and _fitness(kernel, [outer]) > _fitness(kernel, names):
        # Long stretches of each row keep the hardware's prefetching busy.
        return Plan("columns", outer, lanes, 16 if work < 6 else 4 if work < 24 else 2)
    return Plan("rows", "", lanes, 4)


def _streams(kernel: Kernel) -> bool:
    size = product([axis.extent for axis in kernel.axes])
    if not isinstance(size, int):
        return False
    written = sum(b.dtype.itemsize for b in kernel.buffers if b.name in kernel.outputs)
    return size * written > STREAM_BYTES


def _last_inner(kernel: Kernel) -> str:
    return next((s.axes[-1].name for s in kernel.body if s.axes), "")


def _accesses(kernel: Kernel) -> list[tuple[Dim, int]]:
    """Address expressions of all loads and stores, with a weight."""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    found = []
    for node in ir.postorder(s.value for s in kernel.body):
        if node.op == "load":
            name, indices = load_parts(node)
            found.append((address(buffers[name], indices).known, 1))
    for statement in kernel.body:
        if isinstance(statement, Store):
            found.append((address(buffers[statement.buffer], statement.indices).known, 2))
    return found


def _steps_of_one(kernel: Kernel, axis: str) -> int:
    return sum(weight for expression, weight in _accesses(kernel) if step(expression, axis) == 1)


def _fitness(kernel: Kernel, axes: Sequence[str]) -> tuple[int, int]:
    """How well lanes along these axes suit the loads: first few that would gather, then many consecutive ones."""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    loads = [load_parts(node) for node in ir.postorder(s.value for s in kernel.body) if node.op == "load"]
    steps = [step(address(buffers[name], indices).known, axis) for name, indices in loads for axis in set(axes)]
    return -sum(one not in (0, 1) for one in steps), sum(one == 1 for one in steps)


def _contiguous_axis(kernel: Kernel, names: Sequence[str]) -> str:
    """The axis along which most accesses are consecutive; the last one for a tie."""
    if not names:
        return ""
    return max(reversed(names), key=lambda name: _steps_of_one(kernel, name))


def _vector_axis_last(kernel: Kernel, plan: Plan) -> Kernel:
    """Outer points are independent, so the vector axis may be the innermost of them."""
    if not plan.vector_axis or kernel.axes[-1].name == plan.vector_axis:
        return kernel
    chosen = [axis for axis in kernel.axes if axis.name == plan.vector_axis]
    return replace(kernel, axes=(*(a for a in kernel.axes if a.name != plan.vector_axis), *chosen))


class _LoopEmitter:
    def __init__(self, kernel: Kernel, name: str, plan: Plan, isa: str) -> None:
        self.kernel = kernel
        self.isa = isa
        self.name = name
        self.plan = plan
        self.dependencies = Dependencies()
        self.texts: list[str] = []
        self.declarations: set[str] = set()

    def emit(self) -> KernelCode:
        split = self._split()
        if split is not None:
            phases, shared = self._emit_split(*split)
        else:
            shared = 0
            phases = [self._emit_rows() if self.plan.kind == "rows" else self._emit_vectors()]
        plan = self.plan
        axes = " x ".join(str(axis.extent) for axis in self.kernel.axes) or "1"
        note = f"{plan.kind} over {axes}, {plan.lanes} lanes x {plan.unroll}, tasks {phases[0].tasks}"
        if split is not None:
            note += f", reduction cut into blocks of {BLOCK}"
        if plan.streaming:
            note += ", streaming stores"
        return KernelCode("\n".join(self.texts), frozenset(self.declarations), tuple(phases), shared, 0, (note,))

    # --- functions and tasks -----------------------------------------------------------------------------------

    def _function(self, suffix: str, write: Callable[[FunctionWriter, Frame], None], lanes: int) -> str:
        name = f"{self.name}_{suffix}"
        writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=self.isa)
        write(writer, Frame(writer, self.kernel, lanes, self.dependencies))
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
        extents = [scope.dim(axis.extent) for axis in axes]
        with writer.loop(begin, end) as loop:
            values: dict[str, Value] = {}
            rest = loop.index
            for axis, extent in reversed(list(zip(axes[1:], extents[1:], strict=True))):
                values[axis.name] = writer.op("srem", rest, extent)
                rest = writer.op("sdiv", rest, extent)
            values[axes[0].name] = rest
            body(Scope(scope.frame, scope, values))

    # --- pointwise and columns ---------------------------------------------------------------------------------

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
            grain = GRAIN
        tasks: Dim = ceildiv(last.extent, grain) if not before else product([a.extent for a in before])
        per_task: Dim = 1
        if before:
            per_task = floordiv(GRAIN, maximum(last.extent, 1)) + 1
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
            self._over_points(scope, before, low, high, lambda inside: self._vector_loop(inside, last, i64(0), extent))

        function = self._function("f", write, plan.lanes)
        total = product([axis.extent for axis in kernel.axes]) * inner
        return Phase(function, tasks, isinstance(total, int) and total <= GRAIN)

    def _emit_single(self) -> Phase:
        """A kernel of one point: no axis at all."""

        def write(writer: FunctionWriter, frame: Frame) -> None:
            self._statements(Scope(frame), self.kernel.body, 1)

        return Phase(self._function("f", write, 1), 1, True)

    def _vector_loop(self, scope: Scope, axis: Axis, low: Value, high: Value) -> None:
        """`axis` from low to high: whole unrolled vectors first, then single masked ones."""
        writer, plan = scope.writer, self.plan
        lanes, unroll = plan.lanes, plan.unroll
        if plan.kind == "columns" and self._streams_rows():
            self._stripe_loop(scope, axis, low, high)
            return
        names = [axis.name, *(inner.name for statement in self.kernel.body for inner in statement.axes)]
        if plan.kind == "pointwise":
            scope.hoist([statement.value for statement in self.kernel.body], names)
        count = writer.sub(high, low)
        width = lanes * unroll
        body = self._pointwise_body if plan.kind == "pointwise" else self._column_body
        whole = writer.op("sub nsw", count, writer.op("srem", count, i64(width)))
        middle = writer.add(low, whole)
        with writer.loop(low, middle, width) as loop:
            scopes = [
                Scope(scope.frame, scope, {axis.name: writer.add(loop.index, i64(lanes * k))}, axis.name)
                for k in range(unroll)
            ]
            body(scope, scopes)
        with writer.loop(middle, high, lanes) as loop:
            tail = Scope(scope.frame, scope, {axis.name: loop.index}, axis.name)
            tail.mask = tail.tail_mask(loop.index, high)
            body(scope, [tail])

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

    def _pointwise_body(self, outer: Scope, scopes: list[Scope]) -> None:
        for statement in self.kernel.body:
            assert isinstance(statement, Store)
            for scope in scopes:
                scope.vector(statement.value)
            for scope in scopes:
                scope.store(statement.buffer, statement.indices, statement.value, False)

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
        """Reductions walked point by point over their inner axes; `span` cuts the slowest of them."""
        writer = outer.writer
        lanes = self.plan.lanes
        starts = [part for _ in scopes for r in reduces for part in combine.identity(r.combiner, r.value.dtype, lanes)]

        def nest(depth: int, inside: list[Scope], carried: list[Value]) -> list[Value]:
            axes = [reduce.axes[depth] for reduce in reduces] if depth < len(reduces[0].axes) else []
            if not axes:
                return self._advance_all(inside, reduces, carried)
            low, high = (i64(0), outer.dim(axes[0].extent)) if depth or span is None else span
            with writer.loop(low, high, 1, carried) as loop:
                values = {axis.name: loop.index for axis in axes}
                loop.next = nest(depth + 1, [Scope(s.frame, s, values) for s in inside], loop.carried)
            return loop.results

        flat = iter(nest(0, scopes, starts))
        return [
            [[next(flat) for _ in combine.state_types(r.combiner, r.value.dtype, lanes)] for r in reduces]
            for _ in scopes
        ]

    def _advance_all(self, scopes: list[Scope], reduces: Sequence[Reduce], carried: list[Value]) -> list[Value]:
        following: list[Value] = []
        remaining = iter(carried)
        for scope in scopes:
            for reduce in reduces:
                size = len(combine.state_types(reduce.combiner, reduce.value.dtype, 1))
                state = [next(remaining) for _ in range(size)]
                value = self._element(scope, reduce, vectorized=False)
                following += combine.advance(scope.writer, reduce.combiner, reduce.value.dtype, state, value)
        return following

    def _element(self, scope: Scope, reduce: Reduce, vectorized: bool) -> State:
        """The state that one vector of elements stands for. Positions of argmax run along the reduced axis."""
        value = scope.vector(reduce.value)
        if not reduce.combiner.startswith("arg"):
            return [value]
        lanes = scope.frame.lanes
        position = scope.values[reduce.axes[0].name]
        if lanes == 1:
            return [value, position]
        splat = scope.writer.splat(position, lanes)
        if vectorized:
            splat = scope.writer.op("add", splat, scope.writer.iota("i64", lanes))
        return [value, splat]

    def _define(self, scope: Scope, reduce: Reduce, state: State) -> None:
        dtype = combine.result_dtype(reduce.combiner, reduce.value.dtype)
        scope.define(ir.reduced(reduce.name, dtype), combine.result(reduce.combiner, state))

    # --- rows --------------------------------------------------------------------------------------------------

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
        starts = [
            part for _ in range(unroll) for r in reduces for part in combine.identity(r.combiner, r.value.dtype, lanes)
        ]
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
        by_copy = [
            [[next(flat) for _ in combine.state_types(r.combiner, r.value.dtype, lanes)] for r in reduces]
            for _ in range(unroll)
        ]
        final = []
        for position, reduce in enumerate(reduces):
            dtype = reduce.value.dtype
            merged = combine.merge(writer, reduce.combiner, dtype, [copy[position] for copy in by_copy])
            final.append(combine.across_lanes(writer, reduce.combiner, dtype, merged))
        return final

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
        """The last inner axis in vectors: unrolled whole ones, then masked single ones into the first states."""
        writer, lanes = scope.writer, scope.frame.lanes
        scope.hoist([s.value for s in group], [axis.name for axis in axes])
        width = lanes * unroll
        count = writer.sub(high, low)
        whole = writer.op("sub nsw", count, writer.op("srem", count, i64(width)))
        if count.text.isdigit():
            whole = i64(int(count.text) // width * width)
        middle = writer.add(low, whole)
        each = len(carried) // unroll

        def scope_at(index: Value) -> Scope:
            inside = Scope(scope.frame, scope, {axis.name: index for axis in axes})
            inside.vector_axes = inside.vector_axes | {axis.name for axis in axes}
            return inside

        with writer.loop(low, middle, width, carried) as loop:
            scopes = [scope_at(writer.add(loop.index, i64(lanes * k))) for k in range(unroll)]
            loop.next = self._row_step(scopes, group, reduces, loop.carried)
        if middle.text == high.text:
            return loop.results
        rest = loop.results[each:]
        with writer.loop(middle, high, lanes, loop.results[:each]) as tail:
            inside = scope_at(tail.index)
            inside.mask = inside.tail_mask(tail.index, high) if lanes > 1 else None
            tail.next = self._row_step([inside], group, reduces, tail.carried)
        return tail.results + rest

    def _row_step(
        self, scopes: list[Scope], group: Sequence[Statement], reduces: Sequence[Reduce], carried: list[Value]
    ) -> list[Value]:
        for statement in group:
            for scope in scopes:
                scope.vector(statement.value)
        following: list[Value] = []
        remaining = iter(carried)
        for scope in scopes:
            for reduce in reduces:
                dtype = reduce.value.dtype
                size = len(combine.state_types(reduce.combiner, dtype, 1))
                state = [next(remaining) for _ in range(size)]
                value = self._element(scope, reduce, vectorized=True)
                advanced = combine.advance(scope.writer, reduce.combiner, dtype, state, value)
                if scope.mask is not None:
                    advanced = [scope.writer.select(scope.mask, a, b) for a, b in zip(advanced, state, strict=True)]
                following += advanced
        for statement in group:
            if isinstance(statement, Store):
                for scope in scopes:
                    scope.store(statement.buffer, statement.indices, statement.value)
        return following

    # --- reductions cut into blocks ----------------------------------------------------------------------------

    def _split(self) -> tuple[Sequence[Reduce], Dim, Dim] | None:
        """The first pass of a kernel with few outer points and a long reduction: its reductions, the rows of one
        block along their slowest axis, and the number of blocks."""
        kernel = self.kernel
        group = groups(kernel.body)[0] if kernel.body else []
        reduces = [statement for statement in group if isinstance(statement, Reduce)]
        if not reduces or len(reduces) != len(group) or self.plan.kind == "pointwise":
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
                with writer.loop(i64(0), total, 1, starts) as loop:
                    cell = writer.add(writer.mul(loop.index, count), number)
                    found = self._read_states(inside, reduces, writer.mul(cell, i64(slot)))
                    following: list[Value] = []
                    remaining = iter(loop.carried)
                    for reduce, value in zip(reduces, found, strict=True):
                        state = [next(remaining) for _ in value]
                        following += combine.combine(writer, reduce.combiner, reduce.value.dtype, state, value)
                    loop.next = following
                results = iter(loop.results)
                for reduce in reduces:
                    size = len(combine.state_types(reduce.combiner, reduce.value.dtype, 1))
                    self._define(inside, reduce, [next(results) for _ in range(size)])
                self._statements(inside, kernel.body[len(reduces) :], 1)

            self._over_points(scope, kernel.axes, i64(0), count, at_point)

        first = self._function("partial", partial, self.plan.lanes if self.plan.kind == "columns" else lanes)
        second = self._function("final", final, 1)
        return [Phase(first, blocks), Phase(second, 1, True)], blocks * points * slot

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
