"""Scan kernels: running sums and other combinations along an axis.

Where the walked axis is the one that elements lie along (`rows`), every vector is scanned in its register in log2(lanes) steps and
takes what came before as one more addition, so that vectors wait for each other one addition only. Where another axis is
(`columns`), lanes lie along it and states wait in the first cache, as in reductions over stripes. A long row that has few others
beside it is cut into blocks: their totals in a first phase, what comes before each in a second, their elements in a third.
"""

from __future__ import annotations

from collections.abc import Callable

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.loops.plan import BLOCK, FEW_OUTER, GRAIN, ROWS, STRIPE
from pierian.compiler.codegen.streaming import streamed_buffers, write_both_ways
from pierian.compiler.codegen.writer import FunctionWriter, Value, i64, vector
from pierian.compiler.dim import Dim, ceildiv, floordiv, maximum, product
from pierian.compiler.elementary import expand_kernel
from pierian.compiler.frozen import replace
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel, Scan
from pierian.compiler.target.features import Target

# Vectors scanned in one step of a loop over a row.
UNROLL = 4


def emit_scan(kernel: Kernel, name: str, target: Target) -> KernelCode:
    """Native code of a scan kernel."""
    kernel = expand_kernel(kernel, target.isa)
    (scan,) = kernel.body
    assert isinstance(scan, Scan)
    buffer = kernel.buffer(scan.buffer)
    known = address(buffer, scan.indices).known
    lanes = target.lanes(scan.value.dtype.bits)
    across = next((axis for axis in reversed(kernel.axes) if step(known, axis.name) == 1 and axis.extent != 1), None)
    if across is not None and step(known, scan.axes[0].name) not in (1, -1):
        rest = tuple(axis for axis in kernel.axes if axis is not across)
        return _ScanEmitter(replace(kernel, axes=(*rest, across)), scan, name, lanes, target, across.name).columns()
    return _ScanEmitter(kernel, scan, name, lanes, target, scan.axes[0].name).rows()


class _ScanEmitter:
    def __init__(self, kernel: Kernel, scan: Scan, name: str, lanes: int, target: Target, along: str) -> None:
        self.kernel = kernel
        self.scan = scan
        self.dtype = scan.value.dtype
        self.axis = scan.axes[0]
        self.name = name
        self.lanes = lanes
        self.target = target
        self.streamed = streamed_buffers(kernel, lanes, frozenset({along}), target)
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

    # --- rows ----------------------------------------------------------------------------------------------------

    def rows(self) -> KernelCode:
        points = product([axis.extent for axis in self.kernel.axes])
        length = self.axis.extent
        if isinstance(points, int) and points <= FEW_OUTER and not (isinstance(length, int) and length <= 2 * BLOCK):
            return self._blocks(points, ceildiv(length, BLOCK))
        per_task = floordiv(GRAIN, maximum(length, 1)) + 1

        def write(writer: FunctionWriter, scope: Scope) -> None:
            rows, high = scope.dim(points), scope.dim(length)
            low = writer.mul(writer.arg("begin"), scope.dim(per_task))
            end = writer.minimum(writer.mul(writer.arg("end"), scope.dim(per_task)), rows)
            for axis in self.kernel.axes:
                scope.dim(axis.extent)
            with writer.loop(low, end) as loop:
                self._row(self._at(scope, loop.index), i64(0), high, self._identity(1))

        total = points * length
        small = isinstance(total, int) and total <= GRAIN
        tasks = floordiv(points + per_task - 1, per_task)
        return self._code([Phase(self._function("f", write, tasks), tasks, small)], "rows")

    def _at(self, scope: Scope, number: Value) -> Scope:
        """The scope of one point of the outer axes."""
        return Scope(scope.frame, scope, unravel(scope, number, self.kernel.axes))

    def _row(self, scope: Scope, low: Value, high: Value, before: Value) -> None:
        """Scan the elements from low to high, `before` standing for all earlier ones."""
        writer, lanes = scope.writer, self.lanes
        scope.hoist([self.scan.value], [self.axis.name])
        width = lanes * UNROLL
        middle = writer.add(low, writer.op("and", writer.sub(high, low), i64(-width)))
        # Out of sight of code generation, which takes slower instructions to move in a constant than a register.
        filler = writer.alloca(self._identity(lanes).type)
        writer.store(self._identity(lanes), filler, 64)
        self.filler = writer.emit(
            f"load volatile {self._identity(lanes).type}, {filler}, align 64", self._identity(lanes).type
        )
        with writer.loop(low, middle, width, [writer.splat(before, lanes)]) as loop:
            (carry,) = loop.carried
            for copy in range(UNROLL):
                inside = self._along(scope, writer.add(loop.index, i64(lanes * copy)))
                carry = self._one_vector(inside, inside.vector(self.scan.value), carry)
            loop.next = [carry]
        with writer.loop(middle, high, lanes, loop.results) as tail:
            inside = self._along(scope, tail.index)
            inside.mask = inside.tail_mask(tail.index, high) if lanes > 1 else None
            value = inside.vector(self.scan.value)
            if inside.mask is not None:
                value = writer.select(inside.mask, value, self._identity(lanes))
            tail.next = [self._one_vector(inside, value, tail.carried[0])]

    def _along(self, scope: Scope, index: Value) -> Scope:
        return Scope(scope.frame, scope, {self.axis.name: index}, self.axis.name)

    def _one_vector(self, scope: Scope, value: Value, carry: Value) -> Value:
        """Store one vector of results; gives the combination of all so far, in all lanes."""
        writer, lanes = scope.writer, self.lanes
        distance = 1
        while distance < lanes:
            value = self._combine(writer, self._moved(writer, value, distance), value)
            distance *= 2
        own = self._moved(writer, value, 1) if self.scan.exclusive else value
        scope.put(self.scan.buffer, self.scan.indices, self._combine(writer, carry, own))
        total = value if lanes == 1 else writer.shuffle([lanes - 1] * lanes, value)
        return self._combine(writer, carry, total)

    def _moved(self, writer: FunctionWriter, value: Value, distance: int) -> Value:
        """Every lane gets what lies `distance` lanes before it, the first ones the identity."""
        lanes = self.lanes
        if lanes == 1:
            return self._identity(1)
        return writer.shuffle([lanes + lane - distance for lane in range(lanes)], self.filler, value)

    # --- long rows in blocks -------------------------------------------------------------------------------------

    def _blocks(self, points: int, blocks: Dim) -> KernelCode:
        element = self._identity(1).type

        def cell(writer: FunctionWriter, scope: Scope, number: Value) -> Value:
            return writer.gep(scope.frame.parameters.shared, "i64", number)

        def over_blocks(body: Callable[[Scope, Value, Value, Value], None]) -> Callable[[FunctionWriter, Scope], None]:
            def write(writer: FunctionWriter, scope: Scope) -> None:
                count, length = scope.dim(blocks), scope.dim(self.axis.extent)
                for axis in self.kernel.axes:
                    scope.dim(axis.extent)
                with writer.loop(writer.arg("begin"), writer.arg("end")) as loop:
                    point = writer.op("sdiv", loop.index, count)
                    low = writer.mul(writer.sub(loop.index, writer.mul(point, count)), i64(BLOCK))
                    high = writer.minimum(writer.add(low, i64(BLOCK)), length)
                    body(self._at(scope, point), loop.index, low, high)

            return write

        def total(scope: Scope, number: Value, low: Value, high: Value) -> None:
            scope.writer.store(self._total(scope, low, high), cell(scope.writer, scope, number), 8)

        def before(writer: FunctionWriter, scope: Scope) -> None:
            count = scope.dim(blocks)
            for point in range(points):
                first = writer.mul(count, i64(point))
                with writer.loop(first, writer.add(first, count), 1, [self._identity(1)]) as loop:
                    place = cell(writer, scope, loop.index)
                    own = writer.load(place, element, 8)
                    writer.store(loop.carried[0], place, 8)
                    loop.next = [self._combine(writer, loop.carried[0], own)]

        def elements(scope: Scope, number: Value, low: Value, high: Value) -> None:
            self._row(scope, low, high, scope.writer.load(cell(scope.writer, scope, number), element, 8))

        phases = [
            Phase(self._function("totals", over_blocks(total)), blocks * points),
            Phase(self._function("before", before), 1, True),
            Phase(self._function("f", over_blocks(elements), blocks * points), blocks * points),
        ]
        return self._code(phases, f"rows cut into blocks of {BLOCK}", blocks * points * 8)

    def _total(self, scope: Scope, low: Value, high: Value) -> Value:
        """The combination of the elements from low to high."""
        writer, lanes = scope.writer, self.lanes
        scope.hoist([self.scan.value], [self.axis.name])
        width = lanes * UNROLL
        middle = writer.add(low, writer.op("and", writer.sub(high, low), i64(-width)))
        with writer.loop(low, middle, width, [self._identity(lanes)] * UNROLL) as loop:
            for copy, state in enumerate(loop.carried):
                inside = self._along(scope, writer.add(loop.index, i64(lanes * copy)))
                loop.next.append(self._combine(writer, state, inside.vector(self.scan.value)))
        with writer.loop(middle, high, lanes, loop.results[:1]) as tail:
            inside = self._along(scope, tail.index)
            inside.mask = inside.tail_mask(tail.index, high) if lanes > 1 else None
            value = self._combine(writer, tail.carried[0], inside.vector(self.scan.value))
            tail.next = [writer.select(inside.mask, value, tail.carried[0]) if inside.mask is not None else value]
        states = [[state] for state in (*tail.results, *loop.results[1:])]
        merged = combine.merge(writer, self.scan.combiner, self.dtype, states)
        return combine.across_lanes(writer, self.scan.combiner, self.dtype, merged)[0]

    # --- columns ---------------------------------------------------------------------------------------------------

    def columns(self) -> KernelCode:
        *before, across = self.kernel.axes
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
        middle = writer.add(low, writer.op("and", writer.sub(high, low), i64(-lanes)))

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
        whole = writer.op("and", extent, i64(-together))
        with writer.loop(i64(0), whole, together) as several:
            some_rows(several.index, together)
        with writer.loop(whole, extent) as single:
            some_rows(single.index, 1)
