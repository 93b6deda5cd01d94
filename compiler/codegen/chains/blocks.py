"""The phase of a chain kernel that computes: a task is a block of rows, from its scores to its results.

For each block of columns the microkernel of contractions computes scores into the worker's scratch memory, passes over their rows
make them weights, and the microkernel multiplies those, where they lie, by the packed values. A softmax over several blocks of
columns keeps for each row the largest score so far and the sum of weights relative to it. Blocks that a mask fills with one number
come last, and only if that number is near enough to some row's largest score to have a weight: else they add zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain as concatenated

from pierian.compiler.codegen.abi import PHASE_PARAMETERS
from pierian.compiler.codegen.chains.masks import MaskTests
from pierian.compiler.codegen.chains.passes import RowPasses
from pierian.compiler.codegen.combine import combine
from pierian.compiler.codegen.contraction.microkernel import MicroShape, ahead_bytes, emit_microkernel, micro_name
from pierian.compiler.codegen.contraction.packing import lhs_steps, pack_lhs
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.writer import FALSE, NULL, TRUE, FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dim import Dim, ceildiv, product
from pierian.compiler.elementary import expand
from pierian.compiler.elementary.decays import find_decays
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Reduce, Statement, Store
from pierian.compiler.schedule.chains import (
    SCORE_KEPT,
    VANISHED,
    WEIGHT_KEPT,
    Blocks,
    Chain,
    Passes,
    chain_length,
    plan_passes,
)
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.schedule.rows import groups
from pierian.compiler.target.features import Target

# Rows that are walked pass by pass together: their scores stay in the first-level cache.
NEAR_ROWS = 8


@frozen
class _Rows:
    """What a task computes: its scope, first row, how many, and where the panels of its operands begin."""

    scope: Scope
    first: Value
    height: Value
    scores: Value
    values: Value


class ChainEmitter:
    """Writes the function `name`. `offset`: where in shared memory the panels of values begin, in bytes."""

    def __init__(self, name: str, chain: Chain, blocks: Blocks, target: Target, offset: Dim) -> None:
        self.chain, self.blocks, self.isa = chain, blocks, target.isa
        self.writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=target.isa)
        self.frame = Frame(self.writer, chain.kernel, blocks.lanes, Dependencies())
        self.dtype = chain.scores.value.dtype
        self.offset = offset
        self.passes = plan_passes(chain)
        masked = chain.softmax.masked if chain.softmax is not None else None
        self.mask = MaskTests(self.frame, chain.m, chain.column, masked, blocks.nr) if masked is not None else None
        self.idle = (
            MaskTests(self.frame, chain.m, chain.column, chain.idle, blocks.nr) if chain.idle is not None else None
        )
        self.open = plan_passes(chain, open_only=True) if masked is not None and blocks.online else None
        self._expand()
        n = chain.second.n.extent
        assert isinstance(n, int)
        self.panels = -(-n // blocks.nv)
        self._lay_out()

    def _expand(self) -> None:
        """Write out elementary functions, in all expressions at once so that what is equal stays so."""
        before, now = ir.reduced("before", self.dtype), ir.reduced("now", self.dtype)
        fade = ir.scalar("decay", self.dtype, (ir.binary("sub", before, now),))  # maxima grow
        bodies = [self.passes.body, self.open.body if self.open is not None else (), self.chain.results]
        values = [value for body in bodies for value in find_decays(body)]
        *done, self.fade = expand([*values, fade], self.isa)
        found = iter(done)
        first, second, results = (tuple(replace(s, value=next(found)) for s in body) for body in bodies)
        self.passes = Passes(first, self.passes.divisor)
        self.open_body: tuple[Statement, ...] = second
        self.results = [store for store in results if isinstance(store, Store)]
        self.before, self.now = before, now

    def _lay_out(self) -> None:
        """Scratch memory: packed rows of lhs, scores, sums of the second product, and some numbers for each row: what is carried
        over blocks, and the results of reductions."""
        b, depth = self.blocks, self.chain.first.depth
        assert isinstance(depth, int)
        size = self.dtype.itemsize
        self.row_step, self.depth_step = lhs_steps(self.chain.first, b.rows, depth, b.lanes)
        packed = b.rows * self.row_step if self.chain.first.rows_contiguous else depth * self.depth_step
        self.reduces = [statement.name for statement in self.passes.body if isinstance(statement, Reduce)]
        numbers = [b.rows] * (2 + len(self.reduces))
        sizes = [packed, b.rows * b.stride, b.rows * self.panels * b.nv, *numbers]
        self.offsets = [0]
        for elements in sizes:
            self.offsets.append(self.offsets[-1] + -(-elements * size // 64) * 64)

    @property
    def tasks(self) -> Dim:
        """How many blocks of rows."""
        count = product([axis.extent for axis in self.chain.others])
        return count * ceildiv(self.chain.m.extent, self.blocks.rows)

    @property
    def scratch(self) -> int:
        """Bytes each worker needs."""
        return self.offsets[-1]

    def microkernels(self) -> list[FunctionWriter]:
        """The functions that compute tiles."""
        heights = [self.blocks.mr, *([self.blocks.tail] if self.blocks.tail else [])]
        shapes = concatenated.from_iterable((self._score_shape(h), self._value_shape(h)) for h in heights)
        return [emit_microkernel(self.dtype, shape) for shape in shapes]

    def _score_shape(self, height: int) -> MicroShape:
        b = self.blocks
        return MicroShape(height, b.nr, b.lanes, self.row_step, self.depth_step, False, b.ahead)

    def _value_shape(self, height: int) -> MicroShape:
        b = self.blocks
        return MicroShape(height, b.nv, b.lanes, b.stride, 1, False, b.ahead)

    # --- tasks -------------------------------------------------------------------------------------------------------

    def emit(self) -> FunctionWriter:
        """The phase's function."""
        w, c, b = self.writer, self.chain, self.blocks
        scope = self.outermost = Scope(self.frame)
        for size in (*(axis.extent for axis in c.kernel.axes), self._column_blocks, c.column.extent, self.offset):
            scope.dim(size)
        scratch = w.arg("scratch")
        self.waiting = w.alloca(self.dtype.llvm, b.mr * b.nr)
        self.lhs, self.scores, self.sums, self.peaks, self.fades, *found = (
            w.gep(scratch, "i8", i64(offset)) for offset in self.offsets[:-1]
        )
        self.results_of = dict(zip(self.reduces, found, strict=True))
        sizes = [scope.dim(self._panel_elements(r, nr)) for r, nr in ((c.first, b.nr), (c.second, b.nv))]
        values = w.gep(self.frame.parameters.shared, "i8", scope.dim(self.offset))
        row_blocks, height = scope.dim(ceildiv(c.m.extent, b.rows)), scope.dim(c.m.extent)
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            rest, block = w.divided(task.index, row_blocks)
            places = unravel(scope, rest, c.others)
            first = w.mul(block, i64(b.rows))
            inside = Scope(self.frame, scope, places)
            operands = [
                w.gep(base, self.dtype.llvm, w.mul(self._number(places, roles), elements))
                for base, roles, elements in zip(
                    (self.frame.parameters.shared, values), (c.first, c.second), sizes, strict=True
                )
            ]
            rows = _Rows(inside, first, w.minimum(w.sub(height, first), i64(b.rows)), *operands)
            self._pack(rows)
            self._columns(rows)
            self._finish(rows)
        w.ret()
        return w

    @property
    def _column_blocks(self) -> Dim:
        return ceildiv(self.chain.column.extent, self.blocks.columns) if self.blocks.online else 1

    def _panel_elements(self, roles: Roles, nr: int) -> Dim:
        """Elements of all panels of an operand at one point of its batch."""
        return ceildiv(roles.n.extent, nr) * roles.depth * nr

    def _number(self, places: dict[str, Value], roles: Roles) -> Value:
        """Which point of its batch an operand is at."""
        number = i64(0)
        for axis in roles.rhs_batch:
            number = self.writer.add(self.writer.mul(number, self.outermost.dim(axis.extent)), places[axis.name])
        return number

    def _pack(self, rows: _Rows) -> None:
        first = self.chain.first
        written_out = replace(first, lhs=expand([first.lhs], self.isa)[0])
        m, k = (rows.first, rows.height), (i64(0), self.outermost.dim(first.k.extent))
        pack_lhs(rows.scope, written_out, m, k, self.lhs, (self.row_step, self.depth_step))

    # --- blocks of columns -------------------------------------------------------------------------------------------

    def _columns(self, rows: _Rows) -> None:
        w, b = self.writer, self.blocks
        columns = self.outermost.dim(self.chain.column.extent)
        if not b.online:
            self._whole_rows(rows, columns)
            return
        self._clear()
        blocks = self.outermost.dim(self._column_blocks)
        turns = 1 if self.mask is None else 2
        with w.loop(i64(0), i64(turns)) as turn:
            needed = self._masked_matter(rows)
            late = w.cmp("icmp eq", turn.index, i64(1))
            with w.loop(i64(0), blocks) as block:
                start = w.mul(block.index, i64(b.columns))
                end = w.minimum(w.add(start, i64(b.columns)), columns)
                now, is_open = TRUE, FALSE
                if self.mask is not None:
                    place = rows.scope, rows.first, rows.height
                    cut = self.mask.masked_from(*place, start, end)
                    start, end = w.select(late, cut, start), w.select(late, end, cut)
                    now = w.op("and", w.cmp("icmp slt", start, end), w.op("or", needed, w.op("xor", late, TRUE)))
                    is_open = self.mask.everywhere(*place, start, end, not self.mask.masked.holds)
                with w.when(now):
                    self._block(rows, start, end, is_open)

    def _whole_rows(self, rows: _Rows, columns: Value) -> None:
        """All columns in one block: those that are open for some row, and once more with the masked ones if these have weights; else
        their weights, where anybody reads them, are zeros."""
        w = self.writer
        if self.mask is None:
            self._block(rows, i64(0), columns, FALSE)
            return
        cut = self.mask.masked_from(rows.scope, rows.first, rows.height, i64(0), columns)
        some = w.cmp("icmp slt", cut, columns)
        with w.loop(i64(0), i64(2)) as turn:
            late = w.cmp("icmp eq", turn.index, i64(1))
            needed = w.op("and", some, self._masked_matter(rows))
            with w.when(w.op("or", needed, w.op("xor", late, TRUE))):
                self._block(rows, i64(0), w.select(late, columns, cut), FALSE)
        with (
            w.when(w.op("and", some, w.op("xor", self._masked_matter(rows), TRUE))),
            w.loop(i64(0), rows.height) as row,
        ):
            line = Scope(self.frame, rows.scope, {self.chain.m.name: w.add(rows.first, row.index)})
            with w.loop(cut, columns, self.blocks.lanes) as column:
                inside = Scope(self.frame, line, {self.chain.column.name: column.index}, self.chain.column.name)
                inside.mask = inside.tail_mask(column.index, columns)
                for store in self.chain.kept:
                    inside.store(store.buffer, store.indices, ir.const(0.0, self.dtype))

    def _clear(self) -> None:
        assert self.chain.softmax is not None
        w, b, kind = self.writer, self.blocks, self.dtype.llvm
        zero, lowest = constant(0, kind, b.lanes), constant(float("-inf"), kind)
        with w.loop(i64(0), i64(b.rows * self.panels * b.nv), b.lanes) as place:
            w.store(zero, w.gep(self.sums, kind, place.index), self.dtype.itemsize)
        with w.loop(i64(0), i64(b.rows)) as row:
            self._put(self.peaks, row.index, lowest)
            self._put(self.results_of[self.chain.softmax.total.name], row.index, constant(0, kind))

    def _masked_matter(self, rows: _Rows) -> Value:
        """Whether the masked number could have a weight in any row, as far as the rows have been walked."""
        w, kind = self.writer, self.dtype.llvm
        if self.mask is None:
            return FALSE
        assert self.chain.softmax is not None
        peaks = self.peaks if self.blocks.online else self.results_of[self.chain.softmax.peak.name]
        number = rows.scope.get(self.mask.masked.number)
        limit = constant(VANISHED[str(self.dtype)], kind)
        with w.loop(i64(0), rows.height, 1, [FALSE]) as row:
            far = w.cmp("fcmp ogt", w.op("fsub", self._get(peaks, row.index), number), limit)
            row.next = [w.op("or", row.carried[0], w.op("xor", far, TRUE))]
        return row.results[0]

    def _block(self, rows: _Rows, start: Value, end: Value, is_open: Value) -> None:
        """One block of columns: scores, weights, and their products with the values."""
        w, b, c = self.writer, self.blocks, self.chain
        count = w.sub(end, start)
        depth = self.outermost.dim(c.first.depth)
        panel = w.mul(w.op("sdiv", start, i64(b.nr)), w.mul(depth, i64(b.nr))) if start.text != "0" else i64(0)
        with w.loop(i64(0), count, b.nr) as column:
            at = w.add(panel, w.mul(column.index, depth))
            rhs = w.gep(rows.scores, self.dtype.llvm, at)
            following = w.gep(rhs, self.dtype.llvm, w.mul(depth, i64(b.nr)))

            def scores(height: int, row: Value, column: Value = column.index, rhs: Value = rhs) -> None:
                lhs = w.gep(self.lhs, self.dtype.llvm, w.mul(row, i64(self.row_step)))
                target = w.gep(self.scores, self.dtype.llvm, w.add(w.mul(row, i64(b.stride)), column))
                self._tile(self._score_shape(height), lhs, rhs, b.nr, depth, FALSE, target, b.stride, following, row)

            self._tiles(rows, scores)
        self._weights(rows, start, end, is_open)
        whole = self.outermost.dim(c.column.extent)
        if self.idle is not None:
            count = w.sub(self.idle.masked_from(rows.scope, rows.first, rows.height, start, end), start)
        with w.loop(i64(0), i64(self.panels)) as part:
            at = w.mul(w.add(w.mul(part.index, whole), start), i64(b.nv))
            values = w.gep(rows.values, self.dtype.llvm, at)
            following = w.gep(values, self.dtype.llvm, w.mul(whole, i64(b.nv)))

            def products(height: int, row: Value, part: Value = part.index, values: Value = values) -> None:
                lhs = w.gep(self.scores, self.dtype.llvm, w.mul(row, i64(b.stride)))
                target = self._sum_address(part, row)
                resume = TRUE if b.online else FALSE
                shape = self._value_shape(height)
                self._tile(shape, lhs, values, b.nv, count, resume, target, b.nv, following, row)

            self._tiles(rows, products)

    def _sum_address(self, panel: Value, row: Value) -> Value:
        """Where the sums of a row in one panel of the second product lie: rows of a panel follow each other."""
        w, b = self.writer, self.blocks
        return w.gep(self.sums, self.dtype.llvm, w.mul(w.add(w.mul(panel, i64(b.rows)), row), i64(b.nv)))

    def _tiles(self, rows: _Rows, tile: object) -> None:
        w, b = self.writer, self.blocks
        assert callable(tile)
        whole = w.round_down(rows.height, b.mr) if b.tail else rows.height
        with w.loop(i64(0), whole, b.mr) as row:
            tile(b.mr, row.index)
        if b.tail:
            with w.when(w.cmp("icmp slt", whole, rows.height)):
                tile(b.tail, whole)

    def _tile(
        self, shape: MicroShape, lhs: Value, rhs: Value, stride: int, depth: Value, resume: Value, target: Value,
        distance: int, following: Value, row: Value,
    ) -> None:  # fmt: skip
        """One call of the microkernel; sums of several chains wait in `target` where rows lie like those of a tile, else in memory
        of their own."""
        w, b = self.writer, self.blocks
        if b.ahead:
            number = w.op("sdiv", row, i64(b.mr))
            following = w.gep(following, "i8", w.mul(w.mul(number, depth), i64(ahead_bytes(shape))))
        held = target if distance == shape.columns else self.waiting
        length = chain_length(self.chain.column.extent if distance == shape.columns else self.chain.first.depth)
        arguments = [
            lhs,
            rhs,
            i64(stride),
            depth,
            i64(length),
            held,
            resume,
            target,
            i64(distance),
            following,
            NULL,
            i64(1),
        ]
        w.call(micro_name(self.dtype, shape), "void", arguments)

    # --- rows --------------------------------------------------------------------------------------------------------

    def _weights(self, rows: _Rows, start: Value, end: Value, is_open: Value) -> None:
        w = self.writer
        if is_open == FALSE:
            self._row_passes(rows, self.passes.body, start, end)
            return
        yes, no, done = w.label("open"), w.label("mixed"), w.label("weighed")
        w.cond_br(is_open, yes, no)
        w.start(yes)
        self._row_passes(rows, self.open_body, start, end)
        w.br(done)
        w.start(no)
        self._row_passes(rows, self.passes.body, start, end)
        w.br(done)
        w.start(done)

    def _row_passes(self, rows: _Rows, body: tuple[Statement, ...], start: Value, end: Value) -> None:
        """Pass after pass over a few rows at a time: while one row's lanes are put together the next one is walked."""
        w, kind = self.writer, self.dtype.llvm
        kept = frozenset({self.chain.scores.buffer, SCORE_KEPT, WEIGHT_KEPT})
        passes = RowPasses(self.chain.column)
        with w.loop(i64(0), rows.height, NEAR_ROWS) as near:
            last = w.minimum(w.add(near.index, i64(NEAR_ROWS)), rows.height)
            for group in groups(body):
                with w.loop(near.index, last) as row:
                    line = self._line(rows, group, row.index)
                    address = w.gep(self.scores, kind, w.mul(row.index, i64(self.blocks.stride)))
                    for reduce, value in passes.write(line, group, dict.fromkeys(kept, address), start, end):
                        seen = self._carried(line, reduce, value, row.index) if self.blocks.online else value
                        self._put(self.results_of[reduce.name], row.index, seen)

    def _line(self, rows: _Rows, group: Sequence[Statement], row: Value) -> Scope:
        """The scope of a row, in which earlier passes' results are known where they are needed."""
        line = Scope(self.frame, rows.scope, {self.chain.m.name: self.writer.add(rows.first, row)})
        for node in ir.postorder([statement.value for statement in group]):
            if node.op == "reduced":
                line.define(node, self._get(self.results_of[str(node.attribute)], row))
        return line

    def _get(self, numbers: Value, row: Value) -> Value:
        """One of the numbers that a block keeps for each row."""
        return self.writer.load(self.writer.gep(numbers, self.dtype.llvm, row), self.dtype.llvm, self.dtype.itemsize)

    def _put(self, numbers: Value, row: Value, value: Value) -> None:
        self.writer.store(value, self.writer.gep(numbers, self.dtype.llvm, row), self.dtype.itemsize)

    def _carried(self, scope: Scope, reduce: Reduce, value: Value, row: Value) -> Value:
        """A block's largest score, or sum of weights, joined to what earlier blocks gave; sums of both products fade when a larger
        score appears. A row without any finite score yet is measured from zero: its weights vanish."""
        w, kind, size = self.writer, self.dtype.llvm, self.dtype.itemsize
        softmax = self.chain.softmax
        assert softmax is not None
        if reduce.name == softmax.total.name:
            earlier = self._get(self.results_of[reduce.name], row)
            return w.op("fadd", w.op("fmul", earlier, self._get(self.fades, row)), value)
        earlier = self._get(self.peaks, row)
        (peak,) = combine(w, "max", self.dtype, [earlier], [value])
        self._put(self.peaks, row, peak)
        empty = w.cmp("fcmp oeq", peak, constant(float("-inf"), kind))
        origin = w.select(empty, constant(0, kind), peak)
        inside = Scope(self.frame, scope)
        inside.define(self.before, earlier)
        inside.define(self.now, origin)
        faded = inside.get(self.fade)
        self._put(self.fades, row, faded)
        with w.when(w.cmp("fcmp une", faded, constant(1, kind))):
            factor = w.splat(faded, self.blocks.lanes)
            for panel in range(self.panels):
                for offset in range(0, self.blocks.nv, self.blocks.lanes):
                    at = w.gep(self._sum_address(i64(panel), row), kind, i64(offset))
                    sums = w.load(at, vector(kind, self.blocks.lanes), size)
                    w.store(w.op("fmul", sums, factor), at, size)
        return origin

    def _finish(self, rows: _Rows) -> None:
        """Divide the sums and store the results, row by row in vectors."""
        w, b, c, kind = self.writer, self.blocks, self.chain, self.dtype.llvm
        n = c.second.n.extent
        assert isinstance(n, int)
        sums = ir.load(c.values.buffer, c.values.indices, self.dtype)
        with w.loop(i64(0), rows.height) as row:
            line = self._line(rows, c.numbers, row.index)
            for store in c.numbers:
                line.store(store.buffer, store.indices, store.value)
            by = None
            if self.passes.divisor is not None:
                total = self._get(self.results_of[str(self.passes.divisor.attribute)], row.index)
                if not isinstance(c.column.extent, int):  # no columns give a sum of no products: zero
                    none = w.cmp("icmp eq", self.outermost.dim(c.column.extent), i64(0))
                    total = w.select(none, constant(1, kind), total)
                by = w.splat(total, b.lanes)
            for first in range(0, n, b.lanes):
                at = w.gep(self._sum_address(i64(first // b.nv), row.index), kind, i64(first % b.nv))
                value = w.load(at, vector(kind, b.lanes), self.dtype.itemsize)
                for store in self.results:
                    axis = c.values.axes[0].name
                    inside = Scope(self.frame, line, {axis: i64(first)}, axis)
                    if first + b.lanes > n:
                        inside.mask = inside.tail_mask(i64(first), i64(n))
                    inside.define(sums, value if by is None else w.op("fdiv", value, by))
                    inside.store(store.buffer, store.indices, store.value)
