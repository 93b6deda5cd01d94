"""Scan kernels: running sums and other combinations along an axis.

Where elements of the walked axis, or of rows narrower than a vector that are scanned downwards, lie one after the other (`rows`),
every vector is scanned in its register in log2(lanes) steps and takes what came before as one more addition, so that vectors wait
for each other one addition only. Short ones share vectors with their neighbours (`segments`): what a lane takes from others is
limited to its own, a pattern that repeats after some vectors. Where another axis is the one that elements lie along (`columns`),
lanes lie along it and states wait in the first cache, as in reductions over stripes. A long row that has few others beside it is
cut into blocks: their totals in a first phase, what comes before each in a second, their elements in a third.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.loops.plan import BLOCK, FEW_OUTER, GRAIN, ROWS, STRIPE
from pierian.compiler.codegen.streaming import streamed_buffers, write_both_ways
from pierian.compiler.codegen.turns import whole_end
from pierian.compiler.codegen.writer import FunctionWriter, Value, i64, is_literal, vector
from pierian.compiler.dim import Dim, ceildiv, floordiv, maximum, product
from pierian.compiler.elementary import expand_kernel
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel, Scan
from pierian.compiler.schedule.scans import Run, across_lanes, choose_run
from pierian.compiler.target.features import Target

# Vectors scanned in one step of a loop over a row.
UNROLL = 4
# What is written for a part of a point: its scope, the number of the task, and where the part begins and ends.
Part = Callable[[Scope, Value, Value, Value], None]


def emit_scan(kernel: Kernel, name: str, target: Target) -> KernelCode:
    """Native code of a scan kernel."""
    kernel = expand_kernel(kernel, target.isa)
    (scan,) = kernel.body
    assert isinstance(scan, Scan)
    lanes = target.lanes(scan.value.dtype.bits)
    run = choose_run(kernel, lanes)
    if run is None:
        across = across_lanes(kernel)
        assert across is not None
        points = tuple(axis for axis in kernel.axes if axis is not across)
        return _ScanEmitter(Run(kernel, points, (across,), 1, 0), name, lanes, target).columns()
    emitter = _ScanEmitter(run, name, lanes, target)
    return emitter.segments() if run.segment else emitter.rows()


class _ScanEmitter:
    def __init__(self, run: Run, name: str, lanes: int, target: Target) -> None:
        self.run = run
        self.kernel = run.kernel
        (scan,) = run.kernel.body
        assert isinstance(scan, Scan)
        self.scan = scan
        self.dtype = scan.value.dtype
        self.axis = scan.axes[0]
        self.name = name
        self.lanes = lanes
        self.target = target
        along = run.axes[-1].name
        self.streamed = streamed_buffers(self.kernel, lanes, frozenset({along}), target)
        self.filler = self._identity(lanes)
        self.texts: list[str] = []
        self.declarations: set[str] = set()

    def _function(self, suffix: str, write: Callable[[FunctionWriter, Scope], None], tasks: Dim = 1) -> str:
        """Adds the function of a phase, which has so many tasks; its name."""
        writer = FunctionWriter(f"{self.name}_{suffix}", "void", PHASE_PARAMETERS, isa=self.target.isa)
        streamed = self.streamed if suffix == "f" else frozenset()
        frame = Frame(writer, self.kernel, self.lanes, Dependencies())
        write_both_ways(frame, self.target, tasks, streamed, lambda: write(writer, Scope(frame)))
        writer.ret()
        self.texts.append(writer.finish())
        self.declarations |= writer.declarations
        return writer.name

    def _code(self, phases: list[Phase], note: str, shared: Dim = 0) -> KernelCode:
        axes = " x ".join(str(axis.extent) for axis in (*self.kernel.axes, self.axis))
        text = f"scan in {note} over {axes}, {self.lanes} lanes, tasks {phases[-1].tasks}"
        if self.streamed:
            text += f", {self.scan.buffer} stored past the caches"
        return KernelCode("\n".join(self.texts), frozenset(self.declarations), tuple(phases), shared, 0, (text,))

    def _combine(self, writer: FunctionWriter, x: Value, y: Value) -> Value:
        return combine.combine(writer, self.scan.combiner, self.dtype, [x], [y])[0]

    def _identity(self, lanes: int) -> Value:
        return combine.identity(self.scan.combiner, self.dtype, lanes)[0]

    def _hide_identity(self, writer: FunctionWriter) -> None:
        """Keep the identity out of sight of code generation, which takes slower instructions to move in a constant."""
        identity = self._identity(self.lanes)
        place = writer.alloca(identity.type)
        writer.store(identity, place, 64)
        self.filler = writer.emit(f"load volatile {identity.type}, {place}, align 64", identity.type)

    # --- rows ----------------------------------------------------------------------------------------------------

    def rows(self) -> KernelCode:
        points = product([axis.extent for axis in self.run.points])
        length = product([axis.extent for axis in self.run.axes])
        if isinstance(points, int) and points <= FEW_OUTER and not (isinstance(length, int) and length <= 2 * BLOCK):
            return self._blocks(points, length)
        per_task = floordiv(GRAIN, maximum(length, 1)) + 1

        def write(writer: FunctionWriter, scope: Scope) -> None:
            rows, high = scope.dim(points), scope.dim(length)
            low = writer.mul(writer.arg("begin"), scope.dim(per_task))
            end = writer.minimum(writer.mul(writer.arg("end"), scope.dim(per_task)), rows)
            for axis in self.kernel.axes:
                scope.dim(axis.extent)
            self._hide_identity(writer)
            with writer.loop(low, end) as loop:
                self._row(self._at(scope, loop.index), i64(0), high, self._identity(self.lanes))

        total = points * length
        small = isinstance(total, int) and total <= GRAIN
        tasks = floordiv(points + per_task - 1, per_task)
        return self._code([Phase(self._function("f", write, tasks), tasks, small)], "rows")

    def _over_parts(self, count: Dim, size: int, extent: Dim, body: Part) -> Callable[[FunctionWriter, Scope], None]:
        """The function of tasks that each have one of `count` parts, of `size` and less in the last one, of a point's `extent`."""

        def write(writer: FunctionWriter, scope: Scope) -> None:
            parts, end = scope.dim(count), scope.dim(extent)
            for axis in self.kernel.axes:
                scope.dim(axis.extent)
            self._hide_identity(writer)
            with writer.loop(writer.arg("begin"), writer.arg("end")) as task:
                point = writer.op("sdiv", task.index, parts)
                low = writer.mul(writer.sub(task.index, writer.mul(point, parts)), i64(size))
                high = writer.minimum(writer.add(low, i64(size)), end)
                body(self._at(scope, point), task.index, low, high)

        return write

    def _at(self, scope: Scope, number: Value) -> Scope:
        """The scope of one point of those that are walked for themselves."""
        return Scope(scope.frame, scope, unravel(scope, number, self.run.points))

    def _row(self, scope: Scope, low: Value, high: Value, before: Value, is_stored: bool = True) -> Value:
        """Scan the elements from low to high, a vector `before` standing for all earlier ones; gives the same for those behind."""
        writer, lanes = scope.writer, self.lanes
        scope.hoist([self.scan.value], [axis.name for axis in self.run.axes])
        length = writer.sub(high, low)
        left = int(length.text) % lanes if is_literal(length) else None
        begin, carried = low, [before]
        for count in (UNROLL, 1):
            end = whole_end(writer, low, high, lanes * count)
            if end == begin:
                continue
            with writer.loop(begin, end, lanes * count, carried) as loop:
                (carry,) = loop.carried
                for copy in range(count):
                    inside = self._along(scope, writer.add(loop.index, i64(lanes * copy)))
                    carry = self._one_vector(inside, inside.vector(self.scan.value), carry, is_stored)
                loop.next = [carry]
            begin, carried = end, loop.results
        if left == 0:
            return carried[0]
        with writer.loop(begin, high, lanes, carried) as tail:
            inside, value = self._last_vector(scope, tail.index, high)
            inside.stored = left
            tail.next = [self._one_vector(inside, value, tail.carried[0], is_stored)]
        return tail.results[0]

    def _along(self, scope: Scope, index: Value) -> Scope:
        """The scope of a vector of the run."""
        *slow, fast = self.run.axes
        return Scope(scope.frame, scope, {**{axis.name: i64(0) for axis in slow}, fast.name: index}, fast.name)

    def _last_vector(self, scope: Scope, index: Value, end: Value) -> tuple[Scope, Value]:
        """The scope of a vector that may go past the end, and its values, the identity there."""
        inside = self._along(scope, index)
        if self.lanes == 1:
            return inside, inside.vector(self.scan.value)
        inside.mask = inside.tail_mask(index, end)
        value = inside.vector(self.scan.value)
        return inside, scope.writer.select(inside.mask, value, self._identity(self.lanes))

    def _one_vector(self, scope: Scope, value: Value, carry: Value, is_stored: bool = True) -> Value:
        """Store one vector of results, `carry` being the combinations of all before in the lanes that go on with them; gives the
        same for the next vector."""
        writer, lanes, apart = scope.writer, self.lanes, self.run.apart
        value = self._scanned(writer, value, 0)
        whole = self._combine(writer, carry, value)
        if is_stored:
            moved = self._moved(writer, value, apart, 0) if self.scan.exclusive else value
            result = self._combine(writer, carry, moved) if self.scan.exclusive else whole
            scope.put(self.scan.buffer, self.scan.indices, result)
        if lanes == 1 or lanes % apart:
            return writer.shuffle(self._last_ones(), whole) if lanes > 1 else whole
        # Elements of one place in a pattern are the same lanes in every vector: the next one waits for an addition only.
        return self._combine(writer, carry, writer.shuffle(self._last_ones(), value))

    def _last_ones(self) -> list[int]:
        """The lanes of the last elements that those of the next vector go on with."""
        return [self.lanes - self.run.apart + lane % self.run.apart for lane in range(self.lanes)]

    def _scanned(self, writer: FunctionWriter, value: Value, phase: int) -> Value:
        """Every lane combined with those before it in its vector, which begins `phase` elements behind the begin of a segment."""
        distance = self.run.apart
        while distance < (min(self.lanes, self.run.segment) if self.run.segment else self.lanes):
            value = self._combine(writer, self._moved(writer, value, distance, phase), value)
            distance *= 2
        return value

    def _moved(self, writer: FunctionWriter, value: Value, distance: int, phase: int) -> Value:
        """Every lane gets what lies `distance` lanes before it, those with no such lane in their segment the identity."""
        lanes, segment = self.lanes, self.run.segment
        if lanes == 1:
            return self._identity(1)

        def has_one(lane: int) -> bool:
            return lane >= distance and (not segment or (phase + lane) % segment >= distance)

        order = [lanes + lane - distance if has_one(lane) else lane for lane in range(lanes)]
        return writer.shuffle(order, self.filler, value)

    # --- segments shorter than some vectors ----------------------------------------------------------------------------

    def segments(self) -> KernelCode:
        segment = self.run.segment
        (many, *_), points = self.run.axes, product([axis.extent for axis in self.run.points])
        per_task = GRAIN // segment + 1
        parts = ceildiv(many.extent, per_task)

        def some(scope: Scope, number: Value, low: Value, high: Value) -> None:
            first, last = (scope.writer.mul(end, i64(segment)) for end in (low, high))
            self._some_segments(scope, first, last)

        write = self._over_parts(parts, per_task, many.extent, some)
        total = points * many.extent * segment
        small = isinstance(total, int) and total <= GRAIN
        tasks = points * parts
        return self._code([Phase(self._function("f", write, tasks), tasks, small)], f"segments of {segment}")

    def _some_segments(self, scope: Scope, low: Value, high: Value) -> None:
        """Scan the segments between two places of the run."""
        writer, lanes, segment = scope.writer, self.lanes, self.run.segment
        scope.hoist([self.scan.value], [axis.name for axis in self.run.axes])
        vectors = segment // math.gcd(segment, lanes)
        width = lanes * vectors
        middle = writer.sub(high, writer.op("urem", writer.sub(high, low), i64(width)))

        def pattern(vector_at: Callable[[int], tuple[Scope, Value]]) -> None:
            carry = None
            for number in range(vectors):
                inside, value = vector_at(number)
                carry = self._vector_of_segments(inside, value, carry, number * lanes % segment)

        def whole(index: Value) -> tuple[Scope, Value]:
            inside = self._along(scope, index)
            return inside, inside.vector(self.scan.value)

        with writer.loop(low, middle, width) as loop:
            begin = loop.index
            pattern(lambda number: whole(writer.add(begin, i64(number * lanes))))
        with writer.when(writer.cmp("icmp slt", middle, high)):
            pattern(lambda number: self._last_vector(scope, writer.add(middle, i64(number * lanes)), high))

    def _vector_of_segments(self, scope: Scope, value: Value, carry: Value | None, phase: int) -> Value | None:
        """As `_one_vector`, of a vector that begins `phase` elements behind the begin of a segment; no carry where none goes on."""
        writer, lanes, segment, apart = scope.writer, self.lanes, self.run.segment, self.run.apart

        def joined(x: Value) -> Value:
            return self._combine(writer, carry, x) if carry is not None else x

        value = self._scanned(writer, value, phase)
        own = self._moved(writer, value, apart, phase) if self.scan.exclusive else value
        scope.put(self.scan.buffer, self.scan.indices, joined(own))
        following = (phase + lanes) % segment
        goes_on = [following + lane < segment and following + lane % apart >= apart for lane in range(lanes)]
        if not any(goes_on):
            return None
        order = [
            lanes + last if on else lane for lane, (last, on) in enumerate(zip(self._last_ones(), goes_on, strict=True))
        ]
        return writer.shuffle(order, self.filler, joined(value))

    # --- long rows in blocks -------------------------------------------------------------------------------------

    def _blocks(self, points: int, length: Dim) -> KernelCode:
        state = self._identity(self.lanes).type
        pattern = self.lanes * self.run.apart
        block = BLOCK // pattern * pattern
        blocks = ceildiv(length, block)

        def cell(writer: FunctionWriter, scope: Scope, number: Value) -> Value:
            return writer.gep(scope.frame.parameters.shared, "i64", writer.mul(number, i64(self.lanes)))

        def total(scope: Scope, number: Value, low: Value, high: Value) -> None:
            scope.writer.store(self._total(scope, low, high), cell(scope.writer, scope, number), 8)

        def before(writer: FunctionWriter, scope: Scope) -> None:
            count = scope.dim(blocks)
            for point in range(points):
                first = writer.mul(count, i64(point))
                with writer.loop(first, writer.add(first, count), 1, [self._identity(self.lanes)]) as loop:
                    place = cell(writer, scope, loop.index)
                    own = writer.load(place, state, 8)
                    writer.store(loop.carried[0], place, 8)
                    loop.next = [self._combine(writer, loop.carried[0], own)]

        def elements(scope: Scope, number: Value, low: Value, high: Value) -> None:
            self._row(scope, low, high, scope.writer.load(cell(scope.writer, scope, number), state, 8))

        tasks = blocks * points
        phases = [
            Phase(self._function("totals", self._over_parts(blocks, block, length, total)), tasks),
            Phase(self._function("before", before), 1, True),
            Phase(self._function("f", self._over_parts(blocks, block, length, elements), tasks), tasks),
        ]
        return self._code(phases, f"rows cut into blocks of {block}", blocks * points * 8 * self.lanes)

    def _total(self, scope: Scope, low: Value, high: Value) -> Value:
        """The combinations of the elements from low to high, as the vector of results behind them needs them. Of a block that ends
        within a pattern nobody asks."""
        writer, lanes = scope.writer, self.lanes
        if self.run.apart > 1:
            return self._row(scope, low, high, self._identity(lanes), is_stored=False)
        scope.hoist([self.scan.value], [axis.name for axis in self.run.axes])
        width = lanes * UNROLL
        middle = whole_end(writer, low, high, width)
        with writer.loop(low, middle, width, [self._identity(lanes)] * UNROLL) as loop:
            for copy, state in enumerate(loop.carried):
                inside = self._along(scope, writer.add(loop.index, i64(lanes * copy)))
                loop.next.append(self._combine(writer, state, inside.vector(self.scan.value)))
        with writer.loop(middle, high, lanes, loop.results[:1]) as tail:
            _, value = self._last_vector(scope, tail.index, high)
            tail.next = [self._combine(writer, tail.carried[0], value)]
        states = [[state] for state in (*tail.results, *loop.results[1:])]
        merged = combine.merge(writer, self.scan.combiner, self.dtype, states)
        return writer.splat(combine.across_lanes(writer, self.scan.combiner, self.dtype, merged)[0], lanes)

    # --- columns ---------------------------------------------------------------------------------------------------

    def columns(self) -> KernelCode:
        before, (across,) = self.run.points, self.run.axes
        stripes = ceildiv(across.extent, STRIPE)
        tasks = product([axis.extent for axis in before]) * stripes
        width = across.extent
        # As in reductions: rows that are one stripe are one stream, of longer ones several are walked together.
        together = 1 if isinstance(width, int) and width <= STRIPE else ROWS

        def write(writer: FunctionWriter, scope: Scope) -> None:
            count, extent = scope.dim(stripes), scope.dim(width)
            for axis in before:
                scope.dim(axis.extent)
            cells = writer.alloca(self._identity(1).type, STRIPE + self.lanes)
            with writer.loop(writer.arg("begin"), writer.arg("end")) as task:
                point = writer.op("sdiv", task.index, count)
                low = writer.mul(writer.sub(task.index, writer.mul(point, count)), i64(STRIPE))
                high = writer.minimum(writer.add(low, i64(STRIPE)), extent)
                inside = Scope(scope.frame, scope, unravel(scope, point, before))
                self._stripe(inside, across, low, high, cells, together)

        total = tasks * self.axis.extent * (width if isinstance(width, int) else 1 << 40)
        small = isinstance(total, int) and total <= GRAIN
        return self._code([Phase(self._function("f", write, tasks), tasks, small)], "columns")

    def _stripe(self, scope: Scope, across: Axis, low: Value, high: Value, cells: Value, together: int) -> None:
        """Rows one after the other, the states of their columns in `cells`."""
        writer, lanes = scope.writer, self.lanes
        identity = self._identity(lanes)
        element = self._identity(1).type
        middle = whole_end(writer, low, high, lanes)

        def columns(parent: Scope, body: Callable[[Scope, Value], None]) -> None:
            for begin, end in ((low, middle), (middle, high)):
                with writer.loop(begin, end, lanes) as loop:
                    column = Scope(parent.frame, parent, {across.name: loop.index}, across.name)
                    column.mask = column.tail_mask(loop.index, high) if end is high and lanes > 1 else None
                    body(column, writer.gep(cells, element, writer.sub(loop.index, low)))

        def some_rows(first: Value, count: int) -> None:
            rows = [Scope(scope.frame, scope, {self.axis.name: writer.add(first, i64(k))}) for k in range(count)]
            for row in rows:
                row.hoist([self.scan.value], [across.name])

            def walk(column: Scope, place: Value) -> None:
                state = writer.load(place, vector(element, lanes), 4)
                for row in rows:
                    at = {across.name: column.values[across.name]}
                    point = Scope(row.frame, row, at, across.name, column.mask)
                    following = self._combine(writer, state, point.vector(self.scan.value))
                    point.put(self.scan.buffer, self.scan.indices, state if self.scan.exclusive else following)
                    state = following
                writer.store(state, place, 4)

            columns(scope, walk)

        columns(scope, lambda column, place: writer.store(identity, place, 4))
        extent = scope.dim(self.axis.extent)
        whole = writer.round_down(extent, together)
        with writer.loop(i64(0), whole, together) as several:
            some_rows(several.index, together)
        with writer.loop(whole, extent) as single:
            some_rows(single.index, 1)
