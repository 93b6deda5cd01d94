"""Row kernels: every outer point walks its inner axes, the last of them in vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.abi import PHASE_PARAMETERS, Phase
from pierian.compiler.codegen.combine import State
from pierian.compiler.codegen.evaluate import Frame, Scope, first_point, next_point, unravel
from pierian.compiler.codegen.loops.next_rows import accesses_worth_asking, has_short_rows, next_rows
from pierian.compiler.codegen.loops.plan import GRAIN, LONG_STREAM, STREAMS, STRETCH, Plan, may_read_in_streams
from pierian.compiler.codegen.side_by_side import evaluate_together
from pierian.compiler.codegen.streaming import overflows, streamed_buffers, write_both_ways
from pierian.compiler.codegen.turns import turns, whole_end
from pierian.compiler.codegen.writer import TRUE, FunctionWriter, Value, constant, element_of, i64, is_literal, like
from pierian.compiler.cost import kernel_bytes
from pierian.compiler.dim import Dim, ceildiv, floordiv, maximum, product
from pierian.compiler.frozen import replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Reduce, Statement, Store
from pierian.compiler.schedule.kept import SIDE, keep_between_passes
from pierian.compiler.schedule.rows import cost, groups
from pierian.compiler.schedule.spans import Span, spans
from pierian.compiler.target.features import Target


class RowEmitter:
    """Loops over outer points, each of which walks its inner axes in vectors."""

    def __init__(self, kernel: Kernel, name: str, plan: Plan, target: Target) -> None:
        self.kernel = kernel
        self.target, self.isa = target, target.isa
        self.name = name
        self.plan = plan
        self.streamed = self._streamed(target)
        size = kernel_bytes(kernel)
        self.is_near = isinstance(size, int) and size <= target.l2
        asked = accesses_worth_asking(kernel, target, self.streamed) if plan.kind == "rows" else ()
        waits = not plan.abreast and self.streamed < kernel.outputs and overflows(kernel, target)
        if waits and not (asked and has_short_rows(kernel, plan.lanes)):
            # Lines that are stored have to be read first, from memory: short bursts of them hide behind the next row's work.
            self.plan = replace(plan, together=1)
        self.kept: tuple[Buffer, ...] = ()
        if plan.kind == "rows":
            self.kernel, self.kept = keep_between_passes(kernel, self.plan.together, plan.lanes)
        self.dependencies = Dependencies()
        self.next_rows = next_rows(self.kernel, asked, self.plan.together, self.dependencies)
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
        found = streamed_buffers(self.kernel, self.plan.lanes, along, target)
        return found if found and self._spans_begin_in_step() else frozenset()

    def _spans_begin_in_step(self) -> bool:
        """Whether the loops that an axis of vectors is cut into begin at multiples of a vector."""
        if self.plan.kind == "pointwise":
            passes = [([s.value for s in self.kernel.body], [self.kernel.axes[-1]] * len(self.kernel.body))]
        else:
            walked = [group for group in groups(self.kernel.body) if group[0].axes]
            passes = [([s.value for s in group], [s.axes[-1] for s in group]) for group in walked]
        begins = [span.begin for values, axes in passes for span in spans(values, axes)]
        return all(isinstance(begin, int) and begin % self.plan.lanes == 0 for begin in begins)

    def _function(self, suffix: str, write: Callable[[FunctionWriter, Frame], None], lanes: int, tasks: Dim = 1) -> str:
        """Adds the function of a phase, which has so many tasks; its name."""
        name = f"{self.name}_{suffix}"
        writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=self.isa)
        frame = Frame(writer, self.kernel, lanes, self.dependencies)
        for buffer in self.kept:
            frame.add_scratch(buffer)
        streamed = self.streamed if lanes == self.plan.lanes else frozenset()
        write_both_ways(frame, self.target, tasks, streamed, lambda: write(writer, frame))
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
        with writer.loop(begin, end, 1, list(first_point(scope, begin, axes).values())) as loop:
            values = {axis.name: value for axis, value in zip(axes, loop.carried, strict=True)}
            body(Scope(scope.frame, scope, values))
            loop.next = list(next_point(scope, values, axes).values())

    def _emit_rows(self) -> Phase:
        kernel = self.kernel
        row = product([axis.extent for axis in next(s.axes for s in kernel.body if s.axes)])
        points = product([axis.extent for axis in kernel.axes])
        together = self.plan.together
        per_task = ceildiv(floordiv(GRAIN, maximum(row, 1)) + 1, together) * together
        tasks = floordiv(points + per_task - 1, per_task)

        def write(writer: FunctionWriter, frame: Frame) -> None:
            scope = Scope(frame)
            rows = scope.dim(points)
            low = writer.mul(writer.arg("begin"), scope.dim(per_task))
            high = writer.minimum(writer.mul(writer.arg("end"), scope.dim(per_task)), rows)
            self._over_rows(scope, low, high)

        total = points * row
        return Phase(
            self._function("f", write, self.plan.lanes, tasks), tasks, isinstance(total, int) and total <= GRAIN
        )

    def _over_rows(self, scope: Scope, begin: Value, end: Value) -> None:
        """All statements at the points [begin, end), several points at a time, neighbours or abreast: what one waits for (sums
        across lanes, divisions) passes while the others go on, and what all of them read is read once. In the last turns one point
        may stand there more than once: then it is stored as often, the same value each time."""
        writer, axes, together = scope.writer, self.kernel.axes, self.plan.together
        for axis in axes:
            scope.dim(axis.extent)
        with turns(writer, begin, end, together, self.plan.abreast) as (numbers, _):
            last = writer.sub(end, i64(1)) if together > 1 else end
            scopes, first_time = [], []
            for k, number in enumerate(numbers):
                first_time.append(writer.cmp("icmp sle", number, last) if k else TRUE)
                if k and self.plan.abreast:
                    number = writer.select(first_time[k], number, numbers[0])
                elif k:
                    number = writer.minimum(number, last)
                values = unravel(scope, number, axes)
                scopes.append(Scope(scope.frame, scope, {**values, SIDE: i64(k)}))
            self._statements(scopes, self.kernel.body, first_time)

    def _statements(
        self, scopes: Sequence[Scope], body: Sequence[Statement], first_time: Sequence[Value] = (TRUE,)
    ) -> None:
        """Run statements in order at the points that scopes stand at; at each place of a loop all values are computed before any is
        stored. `first_time` says of each scope whether none before it stands at the same point."""
        near: set[str] = set()
        for group in groups(body):
            if group[0].axes:
                read = self._read_in_rows(group)
                self._row_pass(scopes, group, read <= near, first_time)
                near |= read | {s.buffer for s in group if isinstance(s, Store)}
                continue
            for statement in group:
                for scope in scopes:
                    scope.get(statement.value)
                for scope in scopes:
                    if isinstance(statement, Reduce):
                        self._define(scope, statement, self._reduce_one(scope, statement))
                    else:
                        scope.store(statement.buffer, statement.indices, statement.value)

    def _read_in_rows(self, group: Sequence[Statement]) -> set[str]:
        """The buffers of which a pass reads another row at another point."""
        outer = {axis.name for axis in self.kernel.axes}
        loads = (node for node in ir.postorder(s.value for s in group) if node.op == "load")
        return {ir.load_parts(node)[0] for node in loads if self.dependencies.of(node) & outer}

    def _reduce_one(self, scope: Scope, reduce: Reduce) -> State:
        """A reduction over no axes: its one element."""
        value = scope.get(reduce.value)
        return [value, i64(0)] if reduce.combiner.startswith("arg") else [value]

    def _row_pass(
        self, scopes: Sequence[Scope], group: Sequence[Statement], near: bool, first_time: Sequence[Value]
    ) -> None:
        """One pass over the inner axes of a group; defines the results of its reductions in each scope. Rows in the first cache
        are walked side by side; those that come from farther one after the other where they follow each other in memory. Then a
        point is stored once only: results may lie where the second time would read."""
        reduces = [statement for statement in group if isinstance(statement, Reduce)]
        if not reduces and not near:
            for scope, is_first in zip(scopes, first_time, strict=True):
                with scope.writer.when(is_first):
                    self._walked([Scope(scope.frame, scope)], group, None)
            return
        kept = {buffer.name for buffer in self.kept}
        apart = not near and not self.plan.abreast and all(isinstance(s, Reduce) or s.buffer in kept for s in group)
        walked = [
            walk for some in ([[s] for s in scopes] if apart else [scopes]) for walk in self._walked(some, group, None)
        ]
        for scope, walk in zip(scopes, walked, strict=True):
            for position, reduce in enumerate(reduces):
                self._define(scope, reduce, self._row_result(scope, reduce, [state[position] for state in walk], None))

    def _walked(
        self, scopes: Sequence[Scope], group: Sequence[Statement], span: tuple[Value, Value] | None
    ) -> list[list[list[State]]]:
        """For each scope the states of the group's reductions after a pass, those of the unrolled vectors one after the other and,
        for positions, of the vectors left over. `span` cuts the slowest inner axis."""
        writer, lanes = scopes[0].writer, scopes[0].frame.lanes
        reduces = [statement for statement in group if isinstance(statement, Reduce)]
        unroll = self._row_unroll(group, len(scopes))
        for scope in scopes:
            scope.hoist([s.value for s in group], [axis.name for s in group for axis in s.axes])
        starts = [part for _ in scopes for _ in range(unroll) for r in reduces for part in self._start(r, lanes)]
        depth_last = len(group[0].axes) - 1

        def nest(depth: int, inside: Sequence[Scope], carried: list[Value]) -> list[Value]:
            axes = [statement.axes[depth] for statement in group]
            low, high = (i64(0), inside[0].dim(axes[0].extent)) if depth or span is None else span
            if depth == depth_last:
                return self._row_in_spans(inside, group, axes, low, high, carried, unroll)
            with writer.loop(low, high, 1, carried) as loop:
                values = {axis.name: loop.index for axis in axes}
                loop.next = nest(depth + 1, [Scope(one.frame, one, values) for one in inside], loop.carried)
            return loop.results

        flat = iter(nest(0, scopes, starts))

        def taken(reduce: Reduce) -> State:
            return [next(flat) for _ in self._start(reduce, lanes)]

        walked = [[[taken(r) for r in reduces] for _ in range(unroll)] for _ in scopes]
        behind = [[taken(r) if r.combiner.startswith("arg") else [] for r in reduces] for _ in scopes]
        return [[*copies, rest] for copies, rest in zip(walked, behind, strict=True)]

    def _row_result(self, scope: Scope, reduce: Reduce, states: list[State], span: tuple[Value, Value] | None) -> State:
        """The scalar state of a row, from those of the unrolled vectors and, for positions, of the vectors left over."""
        writer, dtype = scope.writer, reduce.value.dtype
        if reduce.combiner.startswith("arg"):
            return self._first_in_row(scope, reduce, states, span, len(states) - 1)
        merged = combine.merge(writer, reduce.combiner, dtype, states[:-1])
        return combine.across_lanes(writer, reduce.combiner, dtype, merged)

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
        begins.append((whole_end(writer, low, high, lanes * unroll), lanes))
        placed = []
        for (begin, stride), (value, number) in zip(begins, states, strict=True):
            change = "trunc" if kind == "i32" else "sext"
            first = writer.splat(begin if kind == "i64" else writer.cast(change, begin, kind), lanes)
            same = element_of(number.type) == kind
            steps = number if same else writer.cast(change, number, like(number.type, kind))
            moved = writer.op("mul", steps, constant(stride, kind, lanes))
            placed.append([value, writer.op("add", moved, writer.op("add", first, writer.iota(kind, lanes)))])
        return combine.first_extreme(writer, reduce.combiner, reduce.value.dtype, placed)

    def _row_states(self, scope: Scope, reduces: Sequence[Reduce], span: tuple[Value, Value] | None) -> list[State]:
        """The final scalar states of reductions over one row."""
        (walk,) = self._walked([scope], reduces, span)
        return [self._row_result(scope, r, [state[i] for state in walk], span) for i, r in enumerate(reduces)]

    def _streams(self, group: Sequence[Statement], extent: Dim, unroll: int) -> int:
        """How many parts of a row are read side by side: several, of long rows that come from memory to be reduced once."""
        plain = all(isinstance(s, Reduce) and not s.combiner.startswith("arg") for s in group)
        long = not isinstance(extent, int) or extent >= LONG_STREAM
        several = (
            plain
            and long
            and not self.is_near
            and unroll % STREAMS == 0
            and may_read_in_streams(self.kernel, self.target)
        )
        return STREAMS if several else 1

    def _row_unroll(self, group: Sequence[Statement], rows: int) -> int:
        """Vectors of each row in flight."""
        work = sum(cost(statement.value) for statement in group)
        unroll = max(1, (8 if work < 4 else 4 if work < 40 else 2) // rows)
        extent = group[0].axes[-1].extent
        if isinstance(extent, int):
            while unroll > 1 and extent < self.plan.lanes * unroll:
                unroll //= 2
        return unroll

    def _row_in_spans(
        self, rows: Sequence[Scope], group: Sequence[Statement], axes: Sequence[Axis], low: Value, high: Value,
        carried: list[Value], unroll: int,
    ) -> list[Value]:  # fmt: skip
        """The last inner axis, span by span where values ask where they stand; positions are counted over the whole axis."""
        positions = any(isinstance(s, Reduce) and s.combiner.startswith("arg") for s in group)
        found = [] if positions else spans([s.value for s in group], axes)
        for span in found or [Span(0, axes[0].extent, tuple(s.value for s in group))]:
            part = [replace(s, value=value) for s, value in zip(group, span.values, strict=True)] if found else group
            reduces = [s for s in part if isinstance(s, Reduce)]
            begin, end = within(rows[0], low, high, span, axes[0])
            carried = self._row_vectors(rows, part, reduces, axes, begin, end, carried, unroll)
        return carried

    def _row_vectors(
        self,
        rows: Sequence[Scope],
        group: Sequence[Statement],
        reduces: Sequence[Reduce],
        axes: Sequence[Axis],
        low: Value,
        high: Value,
        carried: list[Value],
        unroll: int,
    ) -> list[Value]:
        """The last inner axis in vectors: unrolled whole ones, then what is left over; single ones into each row's first states
        where it is not known how many. Long sums of floats are sums of stretches: shorter chains of additions lose less to rounding.

        States are given and returned row by row, in a row vector by vector; what positions have met in the single vectors follows.
        """
        writer, lanes = rows[0].writer, rows[0].frame.lanes
        for row in rows:
            row.hoist([s.value for s in group], [axis.name for axis in axes])
        width = lanes * unroll
        middle = whole_end(writer, low, high, width)
        each = len(carried) // len(rows)
        streams = self._streams(group, axes[0].extent, unroll) if len(rows) == 1 else 1
        in_step = width // streams
        part = writer.op("lshr", writer.sub(middle, low), i64(streams.bit_length() - 1)) if streams > 1 else i64(0)
        begins = [
            writer.add(writer.mul(part, i64(stream)), i64(lanes * k))
            for stream in range(streams)
            for k in range(unroll // streams)
        ]
        first_end = writer.add(low, part) if streams > 1 else middle

        def whole(begin: Value, end: Value, entering: list[Value]) -> list[Value]:
            if begin == end:
                return entering
            with writer.loop(begin, end, in_step, entering) as loop:
                columns = [self._at_column(rows, group, axes, writer.add(loop.index, at), None) for at in begins]
                scopes = [column[position] for position in range(len(rows)) for column in columns]
                step = writer.op("lshr", writer.sub(loop.index, low), i64(width.bit_length() - 1))
                loop.next = self._row_step(scopes, group, reduces, loop.carried, step)
                if self.next_rows is not None and group[0] is self.next_rows.asking:
                    for row in rows:
                        self.next_rows.ask(row, loop.index, in_step)
            return loop.results

        if _in_stretches(reduces, axes[0].extent, width):
            kinds = [r for _ in rows for _ in range(unroll) for r in reduces]
            starts = [part for r in kinds for part in self._start(r, lanes)]
            with writer.loop(low, first_end, STRETCH * in_step, carried) as stretch:
                end = writer.minimum(writer.add(stretch.index, i64(STRETCH * in_step)), first_end)
                stretch.next = [
                    combine.combine(writer, r.combiner, r.value.dtype, [before], [part])[0]
                    for r, before, part in zip(kinds, stretch.carried, whole(stretch.index, end, starts), strict=True)
                ]
            so_far = stretch.results
        else:
            so_far = whole(low, first_end, carried)
        # What is left over goes into the first states; positions are counted anew, in states of their own.
        positions = [r for r in reduces if r.combiner.startswith("arg")]
        entering: list[Value] = []
        for position in range(len(rows)):
            parts = iter(so_far[position * each :])
            for reduce in reduces:
                state = [next(parts) for _ in self._start(reduce, lanes)]
                entering += self._start(reduce, lanes) if reduce in positions else state
        if middle.text == high.text:
            return so_far + [part for _ in rows for r in positions for part in self._start(r, lanes)]
        if is_literal(middle) and is_literal(high) and not positions:
            return self._last_vectors(rows, group, reduces, axes, (int(middle.text), int(high.text)), so_far)
        last = whole_end(writer, middle, high, lanes)
        for begin, end, is_whole in ((middle, last, True), (last, high, False)):
            if begin == end:
                continue
            with writer.loop(begin, end, lanes, entering) as tail:
                scopes = self._at_column(rows, group, axes, tail.index, None if is_whole else high)
                step = writer.op("lshr", writer.sub(tail.index, middle), i64(lanes.bit_length() - 1))
                tail.next = self._row_step(scopes, group, reduces, tail.carried, step)
            entering = tail.results
        after = iter(entering)
        merged: list[Value] = []
        behind: list[Value] = []
        for position in range(len(rows)):
            states = so_far[position * each : (position + 1) * each]
            at = 0
            for reduce in reduces:
                state = [next(after) for _ in self._start(reduce, lanes)]
                if reduce in positions:
                    behind += state
                else:
                    states[at : at + len(state)] = state
                at += len(state)
            merged += states
        return merged + behind

    def _last_vectors(
        self, rows: Sequence[Scope], group: Sequence[Statement], reduces: Sequence[Reduce], axes: Sequence[Axis],
        span: tuple[int, int], states: list[Value],
    ) -> list[Value]:  # fmt: skip
        """What is known to be left over of each row, fewer vectors than are in flight: each into its own states, the last one masked
        where it is no whole one."""
        lanes = rows[0].frame.lanes
        begin, end = span
        columns = []
        for first in range(begin, end, lanes):
            left = end - first
            columns.append(self._at_column(rows, group, axes, i64(first), i64(end) if left < lanes else None))
            if left < lanes and not self.target.is_wide:  # masked stores take narrow vectors long
                for scope in columns[-1]:
                    scope.stored = left
        each, taken = len(states) // len(rows), len(columns) * sum(len(self._start(r, lanes)) for r in reduces)
        entering = [part for row in range(len(rows)) for part in states[row * each : row * each + taken]]
        scopes = [column[row] for row in range(len(rows)) for column in columns]
        found = self._row_step(scopes, group, reduces, entering, i64(0))
        following = list(states)
        for row in range(len(rows)):
            following[row * each : row * each + taken] = found[row * taken : (row + 1) * taken]
        return following

    def _at_column(
        self, rows: Sequence[Scope], group: Sequence[Statement], axes: Sequence[Axis], index: Value, end: Value | None
    ) -> list[Scope]:
        """The lanes from `index` on in each row, those before `end` where that is given; what is the same for all rows is
        computed once."""
        values = {axis.name: index for axis in axes}
        lanes = rows[0].frame.lanes
        mask = rows[0].tail_mask(index, end) if end is not None and lanes > 1 else None
        scopes = []
        for row in rows:
            inside = Scope(row.frame, row, values, mask=mask)
            inside.vector_axes = inside.vector_axes | values.keys()
            scopes.append(inside)
        first, *others = scopes
        if others:
            outer = [SIDE, *(axis.name for axis in self.kernel.axes)]
            results = [f"={s.name}" for s in self.kernel.body if isinstance(s, Reduce)]
            first.hoist([s.value for s in group], [*outer, *results])
            for other in others:
                other.share(first)
        return scopes

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
            evaluate_together(scopes, statement.value)
        following: list[Value] = []
        remaining = iter(carried)
        for scope in scopes:
            for reduce in reduces:
                dtype = reduce.value.dtype
                state = [next(remaining) for _ in self._start(reduce, 1)]
                value = self._element(scope, reduce, state, step)
                following += combine.advance_masked(scope.writer, reduce.combiner, dtype, state, value, scope.mask)
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


def within(scope: Scope, low: Value, high: Value, span: Span, axis: Axis) -> tuple[Value, Value]:
    """The part of a span between two points of its axis, which may be empty but never ends before it begins."""
    writer = scope.writer
    begin, end = scope.dim(span.begin), scope.dim(span.end)
    if all(map(is_literal, (low, high, begin, end))):
        first, last = max(int(low.text), int(begin.text)), min(int(high.text), int(end.text))
        return i64(first), i64(max(first, last))
    is_first, is_last = span.begin == 0, span.end == axis.extent
    begin = low if is_first else writer.intrinsic("llvm.smax", low, begin)
    end = high if is_last else writer.minimum(high, end)
    return begin, end if is_first and is_last else writer.intrinsic("llvm.smax", begin, end)
