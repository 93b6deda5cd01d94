"""Winograd's transforms of filters, input and sums, a vector of channels or outputs at a time.

Tiles are numbered along the batch, the height and the width, in that order. Tiles at the lower and right ends may reach beyond the
array: what they read there is the nearest row or column, and only results that do not exist depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.transpose import emit_turn, transpose, turn_name
from pierian.compiler.codegen.writer import TRUE, FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dim import Dim
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.nodes import Axis, Kernel, Store
from pierian.compiler.kernel.scalar import load_parts
from pierian.compiler.schedule.winograd import IN, OUT, PLANES, TAPS, Winograd

Line = Callable[[FunctionWriter, Sequence[Value]], list[Value]]


def _filters(w: FunctionWriter, g: Sequence[Value]) -> list[Value]:
    half = constant(0.5, *_parts(g[0]))
    ends = w.op("fadd", g[0], g[2])
    return [g[0], w.op("fmul", w.op("fadd", ends, g[1]), half), w.op("fmul", w.op("fsub", ends, g[1]), half), g[2]]


def _input(w: FunctionWriter, d: Sequence[Value]) -> list[Value]:
    return [w.op("fsub", d[0], d[2]), w.op("fadd", d[1], d[2]), w.op("fsub", d[2], d[1]), w.op("fsub", d[1], d[3])]


def _output(w: FunctionWriter, m: Sequence[Value]) -> list[Value]:
    both, apart = w.op("fadd", m[1], m[2]), w.op("fsub", m[1], m[2])
    return [w.op("fadd", m[0], both), w.op("fsub", apart, m[3])]


def _both_ways(w: FunctionWriter, line: Line, values: Sequence[Sequence[Value]]) -> list[list[Value]]:
    """A transform of rows, and then of columns."""
    rows = [line(w, row) for row in values]
    columns = [line(w, column) for column in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _parts(value: Value) -> tuple[str, int]:
    """Element type and lanes of a register."""
    if not value.type.startswith("<"):
        return value.type, 1
    count, element = value.type[1:-1].split(" x ")
    return element, int(count)


class FilterTransform:
    """Filters into panels in shared memory; a task is a vector's worth of channels of one panel."""

    def __init__(self, frame: Frame, plan: Winograd) -> None:
        self.frame = frame
        self.writer = frame.writer
        self.plan = plan
        self.dtype = plan.rhs.dtype
        name, indices = load_parts(plan.rhs)
        known = address(frame.buffers[name], indices).known
        along_outputs = step(known, plan.outputs.name) == 1 or step(known, plan.channels.name) != 1
        self.turned = plan.lanes > 1 and not along_outputs

    @property
    def tasks(self) -> Dim:
        """How many."""
        return self.plan.panels * -(-self.plan.depth // self.plan.lanes)

    def helpers(self) -> list[FunctionWriter]:
        """Functions it calls."""
        return [emit_turn(self.dtype, self.plan.lanes)] if self.turned else []

    def emit(self, scope: Scope) -> None:
        """The whole function."""
        w, p = self.writer, self.plan
        blocks = -(-p.depth // p.lanes)
        squares = w.alloca(self.dtype.llvm, PLANES * p.lanes * p.lanes) if self.turned else None
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            panel = w.op("sdiv", task.index, i64(blocks))
            channel = w.mul(w.sub(task.index, w.mul(panel, i64(blocks))), i64(p.lanes))
            place = w.add(w.mul(panel, i64(PLANES * p.depth * p.nr)), w.mul(channel, i64(p.nr)))
            target = w.gep(self.frame.parameters.shared, self.dtype.llvm, place)
            count = w.minimum(w.sub(i64(p.depth), channel), i64(p.lanes))
            output = w.mul(panel, i64(p.nr))
            with w.loop(i64(0), i64(p.nr), p.lanes) as column:
                begin = w.add(output, column.index)
                here = w.gep(target, self.dtype.llvm, column.index)
                if squares is not None:
                    self._turned(scope, channel, count, begin, here, squares)
                else:
                    self._straight(scope, channel, count, begin, here)
        w.ret()

    def _straight(self, scope: Scope, channel: Value, count: Value, output: Value, target: Value) -> None:
        """Lanes along outputs."""
        w, p = self.writer, self.plan
        with w.loop(i64(0), count) as row:
            inside = Scope(
                self.frame, scope, {p.channels.name: w.add(channel, row.index), p.outputs.name: output}, p.outputs.name
            )
            inside.mask = inside.tail_mask(output, scope.dim(p.outputs.extent))
            start = w.gep(target, self.dtype.llvm, w.mul(row.index, i64(p.nr)))
            for number, value in enumerate(self._transformed(inside)):
                self._store(value, start, number * p.depth * p.nr)

    def _turned(self, scope: Scope, channel: Value, count: Value, output: Value, target: Value, squares: Value) -> None:
        """Lanes along channels; each plane of a square is transposed on its way to the panel."""
        w, p = self.writer, self.plan
        last = w.sub(scope.dim(p.outputs.extent), i64(1))
        area = p.lanes * p.lanes
        with w.loop(i64(0), i64(p.lanes)) as line:
            at = w.minimum(w.add(output, line.index), last)  # nobody uses what stands for outputs that are not there
            inside = Scope(self.frame, scope, {p.outputs.name: at, p.channels.name: channel}, p.channels.name)
            inside.mask = inside.tail_mask(channel, i64(p.depth))
            start = w.gep(squares, self.dtype.llvm, w.mul(line.index, i64(p.lanes)))
            for number, value in enumerate(self._transformed(inside)):
                self._store(value, start, number * area)
        with w.loop(i64(0), i64(PLANES)) as plane:
            square = w.gep(squares, self.dtype.llvm, w.mul(plane.index, i64(area)))
            there = w.gep(target, self.dtype.llvm, w.mul(plane.index, i64(p.depth * p.nr)))
            w.call(turn_name(self.dtype, p.lanes), "void", [square, there, i64(p.nr), count])

    def _transformed(self, scope: Scope) -> list[Value]:
        taps = [axis.name for axis in self.plan.taps]
        values = [
            [
                Scope(self.frame, scope, dict(zip(taps, (i64(u), i64(v)), strict=True))).vector(self.plan.rhs)
                for v in range(TAPS)
            ]
            for u in range(TAPS)
        ]
        return [value for row in _both_ways(self.writer, _filters, values) for value in row]

    def _store(self, value: Value, base: Value, offset: int) -> None:
        self.writer.store(value, self.writer.gep(base, self.dtype.llvm, i64(offset)), self.dtype.itemsize)


class InputTransform:
    """Tiles of the array into planes [4, 4, mb, row]."""

    def __init__(self, frame: Frame, plan: Winograd) -> None:
        self.frame = frame
        self.writer = frame.writer
        self.plan = plan
        self.dtype = plan.lhs.dtype
        name, indices = load_parts(plan.lhs)
        self.array = frame.parameters.buffers[name]
        self.position = address(frame.buffers[name], indices).known

    def emit(self, scope: Scope, first: Value, count: Value, target: Value) -> None:
        """Tiles `first` to `first + count`, the first at `target`; `scope` is the outermost."""
        w, p = self.writer, self.plan
        whole = p.depth // p.lanes * p.lanes
        with w.loop(i64(0), count) as tile:
            lines, offsets = self._places(
                scope, unravel(scope, w.add(first, tile.index), (*p.points, p.rows, p.columns))
            )
            start = w.gep(target, self.dtype.llvm, w.mul(tile.index, i64(p.row)))
            with w.loop(i64(0), i64(whole), p.lanes) as channel:
                self._channels(lines, offsets, start, channel.index, None)
            if whole < p.depth:
                mask = scope.tail_mask(i64(whole), i64(p.depth))
                self._channels(lines, offsets, start, i64(whole), mask)

    def _places(self, scope: Scope, values: dict[str, Value]) -> tuple[list[Value], list[Value]]:
        """Where the first channel of a tile's rows begins, and how far its columns are from there."""
        w, p = self.writer, self.plan
        top, left = (w.mul(values[axis.name], i64(OUT)) for axis in (p.rows, p.columns))
        taps = {axis.name: i64(0) for axis in (*p.taps, p.channels)}
        lines = []
        for distance in self._distances(scope, top, p.height):
            at = {**values, **taps, p.height.name: w.add(top, distance), p.width.name: left}
            lines.append(w.gep(self.array, self.dtype.llvm, Scope(self.frame, scope, at).dim(self.position)))
        apart = step(self.position, p.width.name)
        assert apart is not None
        return lines, [w.mul(one, scope.dim(apart)) for one in self._distances(scope, left, p.width)]

    def _distances(self, scope: Scope, begin: Value, axis: Axis) -> list[Value]:
        """How far a tile's elements are from its first, kept inside of the array."""
        if isinstance(axis.extent, int) and axis.extent % OUT == 0:
            return [i64(at) for at in range(IN)]
        w = self.writer
        most = w.sub(w.add(scope.dim(axis.extent), i64(TAPS - 1 - 1)), begin)
        return [w.minimum(i64(at), most) for at in range(IN)]

    def _channels(
        self, lines: Sequence[Value], offsets: Sequence[Value], target: Value, channel: Value, mask: Value | None
    ) -> None:
        """A vector of channels of one tile."""
        w, p = self.writer, self.plan
        values = [
            [self._load(w.gep(line, self.dtype.llvm, w.add(offset, channel)), mask) for offset in offsets]
            for line in lines
        ]
        start = w.gep(target, self.dtype.llvm, channel)
        for number, value in enumerate(value for row in _both_ways(w, _input, values) for value in row):
            at = w.gep(start, self.dtype.llvm, i64(number * p.mb * p.row))
            w.store(value, at, self.dtype.itemsize)  # a row has room for a whole vector more

    def _load(self, pointer: Value, mask: Value | None) -> Value:
        w, type_ = self.writer, vector(self.dtype.llvm, self.plan.lanes)
        if mask is None:
            return w.load(pointer, type_, self.dtype.itemsize)
        return w.masked_load(pointer, type_, self.dtype.itemsize, mask)


class OutputTransform:
    """Sums [4, 4, mb, nr] to results, through the kernel's epilogue: in vectors along the outputs, or along the width where results
    lie so (channels first).

    Args:
        waiting: memory for the results of a block that are still to be turned around.
    """

    def __init__(self, frame: Frame, kernel: Kernel, plan: Winograd, waiting: Value) -> None:
        self.frame = frame
        self.writer = frame.writer
        self.plan = plan
        self.dtype = plan.reduce.value.dtype
        self.stores = [statement for statement in kernel.body if isinstance(statement, Store)]
        self.waiting_place = waiting
        places = [address(frame.buffers[store.buffer], store.indices).known for store in self.stores]
        self.turned = plan.lanes > 1 and all(step(place, plan.width.name) == 1 for place in places)
        self.square = self.writer.alloca(self.dtype.llvm, plan.lanes * plan.lanes) if self.turned else waiting

    @staticmethod
    def _line(plan: Winograd) -> int:
        """Results along the width that a block may have, and as many more as squares reach beyond them."""
        return OUT * plan.mb + plan.lanes

    @staticmethod
    def waiting(plan: Winograd) -> int:
        """Elements of the memory that results wait in."""
        return OUT * OutputTransform._line(plan) * plan.lanes

    def emit(self, scope: Scope, first: Value, count: Value, output: Value, sums: Value) -> None:
        """Tiles `first` to `first + count`, outputs from `output` on; `scope` is the outermost."""
        w, p = self.writer, self.plan
        if self.turned:
            with w.loop(i64(0), i64(p.nr), p.lanes) as column:
                self._wait(count, column.index, sums)
                self._turn(scope, first, count, w.add(output, column.index))
            return
        n = p.outputs.extent
        if isinstance(n, int) and n % p.nr == 0:
            self._straight(scope, first, count, output, sums, False)
            return
        full, edge, done = w.label("full"), w.label("edge"), w.label("stored")
        w.cond_br(w.cmp("icmp sle", w.add(output, i64(p.nr)), scope.dim(n)), full, edge)
        for label, masked in ((full, False), (edge, True)):
            w.start(label)
            self._straight(scope, first, count, output, sums, masked)
            w.br(done)
        w.start(done)

    def _transformed(self, sums: Value, tile: Value, column: Value) -> list[list[Value]]:
        """The four results of a tile for a vector of outputs."""
        w, p = self.writer, self.plan
        start = w.gep(sums, self.dtype.llvm, w.add(w.mul(tile, i64(p.nr)), column))
        type_ = vector(self.dtype.llvm, p.lanes)
        values = [
            [
                w.load(w.gep(start, self.dtype.llvm, i64((IN * a + b) * p.mb * p.nr)), type_, self.dtype.itemsize)
                for b in range(IN)
            ]
            for a in range(IN)
        ]
        return _both_ways(w, _output, values)

    def _exists(self, scope: Scope, place: Value, axis: Axis, part: int) -> Value:
        """Whether the result at an even or odd place is one: a last tile may have one less."""
        if part == 0 or (isinstance(axis.extent, int) and axis.extent % OUT == 0):
            return TRUE
        return self.writer.cmp("icmp slt", place, scope.dim(axis.extent))

    def _finish(self, scope: Scope, value: Value) -> None:
        """The kernel's stores where a scope stands."""
        scope.define(ir.reduced(self.plan.reduce.name, self.dtype), value)
        for store in self.stores:
            scope.store(store.buffer, store.indices, store.value)

    # --- along the outputs -----------------------------------------------------------------------------------------

    def _straight(self, scope: Scope, first: Value, count: Value, output: Value, sums: Value, masked: bool) -> None:
        w, p = self.writer, self.plan
        with w.loop(i64(0), count) as tile:
            values = unravel(scope, w.add(first, tile.index), (*p.points, p.rows, p.columns))
            top, left = (w.mul(values[axis.name], i64(OUT)) for axis in (p.rows, p.columns))
            with w.loop(i64(0), i64(p.nr), p.lanes) as column:
                at = w.add(output, column.index)
                mask = scope.tail_mask(at, scope.dim(p.outputs.extent)) if masked else None
                for i, row in enumerate(self._transformed(sums, tile.index, column.index)):
                    for j, value in enumerate(row):
                        h, v = w.add(top, i64(i)), w.add(left, i64(j))
                        exists = w.both(self._exists(scope, h, p.height, i), self._exists(scope, v, p.width, j))
                        place = {**values, p.height.name: h, p.width.name: v, p.outputs.name: at}
                        with w.when(exists):
                            self._finish(Scope(self.frame, scope, place, p.outputs.name, mask), value)

    # --- along the width -------------------------------------------------------------------------------------------

    def _wait(self, count: Value, column: Value, sums: Value) -> None:
        """Results of a vector of outputs, as [row of the tile, place along the width, outputs]."""
        w, p = self.writer, self.plan
        with w.loop(i64(0), count) as tile:
            start = w.gep(self.waiting_place, self.dtype.llvm, w.mul(tile.index, i64(OUT * p.lanes)))
            for i, row in enumerate(self._transformed(sums, tile.index, column)):
                for j, value in enumerate(row):
                    at = w.gep(start, self.dtype.llvm, i64((i * self._line(p) + j) * p.lanes))
                    w.store(value, at, self.dtype.itemsize)

    def _turn(self, scope: Scope, first: Value, count: Value, output: Value) -> None:
        """Rows of tiles, one after the other, as far as the block has them."""
        w, p = self.writer, self.plan
        across, end = scope.dim(p.columns.extent), w.add(first, count)
        before = w.op("sdiv", first, across)
        behind = w.op("sdiv", w.sub(w.add(end, across), i64(1)), across)
        with w.loop(before, behind) as row:
            values = unravel(scope, row.index, (*p.points, p.rows))
            start = w.mul(row.index, across)
            low = w.intrinsic("llvm.smax", start, first)
            left = w.mul(w.sub(low, start), i64(OUT))
            tiles = w.sub(w.minimum(w.add(start, across), end), low)
            width = w.minimum(w.mul(tiles, i64(OUT)), w.sub(scope.dim(p.width.extent), left))
            with w.loop(i64(0), i64(OUT)) as part:
                h = w.add(w.mul(values[p.rows.name], i64(OUT)), part.index)
                place = {**values, p.height.name: h}
                line = w.add(w.mul(part.index, i64(self._line(p))), w.mul(w.sub(low, first), i64(OUT)))
                source = w.gep(self.waiting_place, self.dtype.llvm, w.mul(line, i64(p.lanes)))
                with w.when(self._exists(scope, h, p.height, 1)), w.loop(i64(0), width, p.lanes) as at:
                    self._square(scope, place, w.add(left, at.index), scope.tail_mask(at.index, width), output,
                                 w.gep(source, self.dtype.llvm, w.mul(at.index, i64(p.lanes))))  # fmt: skip

    def _square(
        self, scope: Scope, place: dict[str, Value], left: Value, mask: Value, output: Value, source: Value
    ) -> None:
        """A vector of places along the width for each of a vector of outputs."""
        w, p = self.writer, self.plan
        type_, element = vector(self.dtype.llvm, p.lanes), self.dtype.llvm

        def at(base: Value, line: Value) -> Value:
            return w.gep(base, element, w.mul(line, i64(p.lanes)))

        lines = [w.load(at(source, i64(line)), type_, self.dtype.itemsize) for line in range(p.lanes)]
        for line, value in enumerate(transpose(w, lines)):
            w.store(value, at(self.square, i64(line)), self.dtype.itemsize)
        count = w.minimum(w.sub(scope.dim(p.outputs.extent), output), i64(p.lanes))
        with w.loop(i64(0), count) as turn:
            there = {**place, p.width.name: left, p.outputs.name: w.add(output, turn.index)}
            value = w.load(at(self.square, turn.index), type_, self.dtype.itemsize)
            self._finish(Scope(self.frame, scope, there, p.width.name, mask), value)
