"""The phases of a grid kernel: one walks the blocks of its matrices, one adds up what its shares have summed over columns.

In a block the microkernel of contractions computes scores into the worker's scratch memory, a pass over each row makes them weights,
and the microkernel multiplies those, where they lie, by packed operands: read along rows for the sums over columns, along columns
for those over rows. Operands are packed once for each block they are used in, which costs little beside its products. Blocks that a
mask empties for all of their rows are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen.abi import PHASE_PARAMETERS
from pierian.compiler.codegen.chains.masks import MaskTests
from pierian.compiler.codegen.chains.passes import RowPasses
from pierian.compiler.codegen.contraction.microkernel import MicroShape, emit_microkernel, micro_name
from pierian.compiler.codegen.contraction.packing import lhs_steps, pack_lhs, pack_rhs
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.transpose import emit_turn
from pierian.compiler.codegen.writer import FALSE, NULL, TRUE, FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dim import Dim, ceildiv
from pierian.compiler.elementary import expand
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Store
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.chains import VANISHED, chain_length
from pierian.compiler.schedule.grids import Blocks, Grid, Sum
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.target.features import Target

# Rows whose shares one task adds up.
FINISHED = 64


@frozen
class _Block:
    """Where a block stands: the scope of its point of the batch, first row and column, and how many."""

    scope: Scope
    row: Value
    height: Value
    column: Value
    count: Value


class _GridWriter:
    """What both phases share.

    Attributes:
        waiting: for each sum over columns, by its position, where in shared memory each share's sums begin, in elements.
        shared: bytes of shared memory.
    """

    def __init__(self, name: str, grid: Grid, blocks: Blocks, target: Target) -> None:
        self.grid, self.blocks, self.isa = grid, blocks, target.isa
        self.writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=target.isa)
        self.frame = Frame(self.writer, grid.kernel, blocks.lanes, Dependencies())
        self.dtype = grid.scores[0][0].value.dtype
        self.waiting: dict[int, Dim] = {}
        elements: Dim = 0
        for position, one in enumerate(grid.sums):
            if not one.over_rows:
                self.waiting[position] = elements
                elements = elements + grid.batch * blocks.shares * self.share_elements(one)
        self.shared = elements * self.dtype.itemsize

    def padded(self, one: Sum) -> int:
        """Columns of results in whole tiles."""
        nv = self.blocks.nv(one.width)
        return -(-one.width // nv) * nv

    @property
    def rows(self) -> Dim:
        """All rows, in whole blocks."""
        return ceildiv(self.grid.row.extent, self.blocks.rows) * self.blocks.rows

    def share_elements(self, one: Sum) -> Dim:
        """Elements of a sum over columns at one point of the batch, for one share: panels of all rows."""
        return self.rows * self.padded(one)

    def begin(self) -> None:
        """The outermost scope, with the sizes that loops inside look up."""
        grid, blocks = self.grid, self.blocks
        self.outermost = Scope(self.frame)
        sizes = [axis.extent for axis in (*grid.kernel.axes, grid.row, grid.column)]
        sizes += [ceildiv(grid.row.extent, blocks.rows), ceildiv(grid.column.extent, blocks.columns), self.rows]
        sizes += [ceildiv(grid.row.extent, FINISHED), *self.waiting.values()]
        for size in (*sizes, *(self.share_elements(one) for one in grid.over_columns)):
            self.outermost.dim(size)

    def share(self, position: int, point: Value, number: Value | int) -> Value:
        """Where a share's sums begin."""
        w, one = self.writer, self.grid.sums[position]
        at = w.add(w.mul(point, i64(self.blocks.shares)), i64(number) if isinstance(number, int) else number)
        place = w.add(
            self.outermost.dim(self.waiting[position]), w.mul(at, self.outermost.dim(self.share_elements(one)))
        )
        return w.gep(self.frame.parameters.shared, self.dtype.llvm, place)

    def written_out(self, operand: Scalar) -> Scalar:
        """An operand with its elementary functions written out."""
        return expand([operand], self.isa)[0]

    def results(self, one: Sum, line: Scope, row: Value, distance: Value | int, bases: Sequence[Value]) -> None:
        """Store a row of results from sums that lie in panels of `distance` rows, added up over `bases`."""
        w, kind, size, lanes = self.writer, self.dtype.llvm, self.dtype.itemsize, self.blocks.lanes
        nv, rows = self.blocks.nv(one.width), i64(distance) if isinstance(distance, int) else distance
        load = ir.load(one.product.buffer, one.product.indices, self.dtype)
        axis = one.product.axes[1].name
        values = expand([store.value for store in one.stores], self.isa)
        for first in range(0, one.width, lanes):
            place = w.add(w.mul(w.add(w.mul(i64(first // nv), rows), row), i64(nv)), i64(first % nv))
            parts = [w.load(w.gep(base, kind, place), vector(kind, lanes), size) for base in bases]
            total = parts[0]
            for part in parts[1:]:
                total = w.op("fadd", total, part)
            for store, value in zip(one.stores, values, strict=True):
                inside = Scope(self.frame, line, {axis: i64(first)}, axis)
                if first + lanes > one.width:
                    inside.mask = inside.tail_mask(i64(first), i64(one.width))
                inside.define(load, total)
                inside.store(store.buffer, store.indices, value)


class GridFinisher(_GridWriter):
    """Writes the phase that adds up the shares of sums over columns and stores their results: a task is some rows."""

    @property
    def tasks(self) -> Dim:
        """How many tasks; none where nothing is summed over columns."""
        return self.grid.batch * ceildiv(self.grid.row.extent, FINISHED) if self.waiting else 0

    def emit(self) -> FunctionWriter:
        """The phase's function."""
        w, grid = self.writer, self.grid
        self.begin()
        blocks, height = self.outermost.dim(ceildiv(grid.row.extent, FINISHED)), self.outermost.dim(grid.row.extent)
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            point, block = w.divided(task.index, blocks)
            scope = Scope(self.frame, self.outermost, unravel(self.outermost, point, grid.kernel.axes))
            first = w.mul(block, i64(FINISHED))
            end = w.minimum(w.add(first, i64(FINISHED)), height)
            for position in self.waiting:
                bases = [self.share(position, point, number) for number in range(self.blocks.shares)]
                with w.loop(first, end) as row:
                    line = Scope(self.frame, scope, {grid.row.name: row.index})
                    self.results(grid.sums[position], line, row.index, self.outermost.dim(self.rows), bases)
        w.ret()
        return w


class GridEmitter(_GridWriter):
    """Writes the phase that walks the blocks."""

    def __init__(self, name: str, grid: Grid, blocks: Blocks, target: Target) -> None:
        super().__init__(name, grid, blocks, target)
        self.tests = None
        if grid.vanishing is not None:
            # Columns are cut at a tile's edge: what a tile reads of a column adds to its sums.
            self.tests = MaskTests(self.frame, grid.row, grid.column, grid.vanishing.masked, blocks.mr)
        values = [store.value for store in grid.work]
        opened = [store.value for store in grid.open_work] if self.tests is not None else []
        done = expand([*values, *opened], self.isa)
        made = [replace(store, value=value) for store, value in zip((*grid.work, *grid.work), done, strict=False)]
        self.work, self.open_work = made[: len(values)], made[len(values) :]
        self._lay_out()

    def _lay_out(self) -> None:
        """Scratch memory, by name: left operands and matrices for some rows, right operands for some columns, both for sums."""
        b, grid = self.blocks, self.grid
        self.offsets: dict[str, int] = {}
        self.scratch = 0
        # Weights lie over scores: each is computed from those at its own place alone.
        for number in range(max(len(grid.scores), len(grid.work))):
            self._add(f"matrix{number}", b.rows * b.stride)
        for number, (_, roles) in enumerate(grid.scores):
            depth = _size(roles.k)
            row_step = self._steps(roles)[0]
            self._add(f"lhs{number}", b.rows * row_step if roles.rows_contiguous else depth * self._steps(roles)[1])
            self._add(f"rhs{number}", b.columns * depth)
        for number, one in enumerate(grid.sums):
            self._add(f"operand{number}", (b.rows if one.over_rows else b.columns) * self.padded(one))
            if one.over_rows:
                self._add(f"sums{number}", b.tall * self.padded(one))
        self._add("tile", b.mr * b.nr)

    def _add(self, name: str, elements: int) -> None:
        self.offsets[name] = self.scratch
        self.scratch += -(-elements * self.dtype.itemsize // 64) * 64

    def _steps(self, roles: Roles) -> tuple[int, int]:
        """Distances of a packed left operand of scores along rows and along products, off a power of two."""
        return lhs_steps(roles, self.blocks.rows, _size(roles.k), self.blocks.lanes)

    @property
    def tasks(self) -> Dim:
        """How many shares of points of the batch."""
        return self.grid.batch * self.blocks.shares

    def helpers(self) -> list[FunctionWriter]:
        """The functions that are called: tiles, and squares that are turned."""
        b = self.blocks
        shapes = [self._score_shape(roles) for _, roles in self.grid.scores]
        shapes += [self._sum_shape(one) for one in self.grid.sums]
        roles = [*(roles for _, roles in self.grid.scores), *(one.roles for one in self.grid.sums)]
        turns = any(not one.columns_contiguous for one in roles)
        found = [emit_microkernel(self.dtype, shape) for shape in dict.fromkeys(shapes)]
        return [*found, *([emit_turn(self.dtype, b.lanes)] if turns else [])]

    def _score_shape(self, roles: Roles) -> MicroShape:
        b = self.blocks
        return MicroShape(b.mr, b.nr, b.lanes, *self._steps(roles), False)

    def _sum_shape(self, one: Sum) -> MicroShape:
        b = self.blocks
        steps = (1, b.stride) if one.over_rows else (b.stride, 1)
        return MicroShape(b.mr, b.nv(one.width), b.lanes, *steps, False)

    # --- tasks -------------------------------------------------------------------------------------------------------

    def emit(self) -> FunctionWriter:
        """The phase's function."""
        w, grid, b = self.writer, self.grid, self.blocks
        self.begin()
        self.memory = {name: w.gep(w.arg("scratch"), "i8", i64(offset)) for name, offset in self.offsets.items()}
        column_blocks = self.outermost.dim(ceildiv(grid.column.extent, b.columns))
        row_blocks = self.outermost.dim(ceildiv(grid.row.extent, b.rows))
        height, width = self.outermost.dim(grid.row.extent), self.outermost.dim(grid.column.extent)
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            point, share = w.divided(task.index, i64(b.shares))
            scope = Scope(self.frame, self.outermost, unravel(self.outermost, point, grid.kernel.axes))
            shares = {position: self.share(position, point, share) for position in self.waiting}
            for position, base in shares.items():
                self._clear(base, self.outermost.dim(self.share_elements(grid.sums[position])))
            with w.loop(share, column_blocks, b.shares) as turn:
                start = w.mul(turn.index, i64(b.columns))
                count = w.minimum(w.sub(width, start), i64(b.columns))
                self._pack_columns(scope, start, count)
                with w.loop(i64(0), row_blocks) as block:
                    first = w.mul(block.index, i64(b.rows))
                    rows = w.minimum(w.sub(height, first), i64(b.rows))
                    self._block(_Block(scope, first, rows, start, count), shares)
                self._finish_columns(scope, start, count)
        w.ret()
        return w

    def _clear(self, base: Value, elements: Value) -> None:
        w, kind, lanes = self.writer, self.dtype.llvm, self.blocks.lanes
        zero = constant(0, kind, lanes)
        with w.loop(i64(0), elements, lanes) as place:
            w.store(zero, w.gep(base, kind, place.index), self.dtype.itemsize)

    def _pack_columns(self, scope: Scope, start: Value, count: Value) -> None:
        """The right operands for a block of columns, and empty sums for it."""
        b, grid = self.blocks, self.grid
        for number, (_, roles) in enumerate(grid.scores):
            depth = _size(roles.k)
            place = (i64(0), start), (i64(depth), count)
            self._pack_panels(scope, roles, *place, self.memory[f"rhs{number}"], b.nr, depth * b.nr)
        for number, one in enumerate(grid.sums):
            if one.over_rows:
                self._clear(self.memory[f"sums{number}"], i64(b.tall * self.padded(one)))
            else:
                self._pack_operand(scope, number, start, count, b.columns)

    def _pack_operand(self, scope: Scope, number: int, first: Value, count: Value, room: int) -> None:
        """Some rows of the operand of a sum."""
        one = self.grid.sums[number]
        nv = self.blocks.nv(one.width)
        place = (first, i64(0)), (count, i64(one.width))
        self._pack_panels(scope, one.roles, *place, self.memory[f"operand{number}"], nv, room * nv)

    def _pack_panels(
        self, scope: Scope, roles: Roles, begin: tuple[Value, Value], count: tuple[Value, Value], target: Value,
        nr: int, panel: int,
    ) -> None:  # fmt: skip
        written_out = replace(roles, rhs=self.written_out(roles.rhs))
        pack_rhs(scope, written_out, begin, count, target, nr, i64(panel))

    def _finish_columns(self, scope: Scope, start: Value, count: Value) -> None:
        """Store the sums over rows."""
        w = self.writer
        for number, one in enumerate(self.grid.sums):
            if not one.over_rows:
                continue
            with w.loop(i64(0), count) as column:
                line = Scope(self.frame, scope, {self.grid.column.name: w.add(start, column.index)})
                self.results(one, line, column.index, self.blocks.tall, [self.memory[f"sums{number}"]])

    # --- blocks ------------------------------------------------------------------------------------------------------

    def _block(self, block: _Block, shares: dict[int, Value]) -> None:
        """One block: its matrices, and what they add to the sums."""
        w = self.writer
        if self.tests is None:
            self._products(block, shares, FALSE)
            return
        place = block.scope, block.row, block.height
        end = w.add(block.column, block.count)
        cut = self.tests.masked_from(*place, block.column, end)
        cut = w.select(self._all_vanish(block, w.cmp("icmp slt", cut, end)), cut, end)
        with w.when(w.cmp("icmp slt", block.column, cut)):
            is_open = self.tests.everywhere(*place, block.column, cut, not self.tests.masked.holds)
            self._products(replace(block, count=w.sub(cut, block.column)), shares, is_open)

    def _all_vanish(self, block: _Block, wanted: Value) -> Value:
        """Whether what is masked has no weight in any row of a block; not looked at where that is not wanted."""
        w, vanishing = self.writer, self.grid.vanishing
        assert vanishing is not None
        (exponent,) = expand([vanishing.exponent], self.isa)
        limit = constant(-VANISHED[str(self.dtype)], self.dtype.llvm)
        with w.loop(i64(0), w.select(wanted, block.height, i64(0)), 1, [TRUE]) as row:
            line = Scope(self.frame, block.scope, {self.grid.row.name: w.add(block.row, row.index)})
            row.next = [w.op("and", row.carried[0], w.cmp("fcmp olt", line.get(exponent), limit))]
        return row.results[0]

    def _products(self, block: _Block, shares: dict[int, Value], is_open: Value) -> None:
        w, b = self.writer, self.blocks
        for number, (_, roles) in enumerate(self.grid.scores):
            self._scores(block, number, roles)
        self._weights(block, is_open)
        for number, one in enumerate(self.grid.sums):
            nv, weights = b.nv(one.width), self.memory[f"matrix{one.weight}"]
            if one.over_rows:
                self._pack_operand(block.scope, number, block.row, block.height, b.rows)
                base, tall, extent, depth = self.memory[f"sums{number}"], i64(b.tall), block.count, block.height
            else:
                row = w.mul(block.row, i64(nv))
                base, tall = w.gep(shares[number], self.dtype.llvm, row), self.outermost.dim(self.rows)
                extent, depth = block.height, block.count
            with w.loop(i64(0), i64(self.padded(one) // nv)) as panel:
                room = (b.rows if one.over_rows else b.columns) * nv
                rhs = w.gep(self.memory[f"operand{number}"], self.dtype.llvm, w.mul(panel.index, i64(room)))
                sums = w.gep(base, self.dtype.llvm, w.mul(w.mul(panel.index, tall), i64(nv)))
                with w.loop(i64(0), extent, b.mr) as tile:
                    step = i64(1 if one.over_rows else b.stride)
                    lhs = w.gep(weights, self.dtype.llvm, w.mul(tile.index, step))
                    target = w.gep(sums, self.dtype.llvm, w.mul(tile.index, i64(nv)))
                    self._tile(self._sum_shape(one), lhs, rhs, depth, chain_length(b.columns), target, target, nv)

    def _scores(self, block: _Block, number: int, roles: Roles) -> None:
        """One matrix of a block."""
        w, b, kind = self.writer, self.blocks, self.dtype.llvm
        depth = _size(roles.k)
        lhs, matrix = self.memory[f"lhs{number}"], self.memory[f"matrix{number}"]
        steps = self._steps(roles)
        rows, products = (block.row, block.height), (i64(0), i64(depth))
        pack_lhs(block.scope, replace(roles, lhs=self.written_out(roles.lhs)), rows, products, lhs, steps)
        with w.loop(i64(0), block.count, b.nr) as column:
            rhs = w.gep(self.memory[f"rhs{number}"], kind, w.mul(column.index, i64(depth)))
            with w.loop(i64(0), block.height, b.mr) as row:
                left = w.gep(lhs, kind, w.mul(row.index, i64(steps[0])))
                target = w.gep(matrix, kind, w.add(w.mul(row.index, i64(b.stride)), column.index))
                held, shape = self.memory["tile"], self._score_shape(roles)
                self._tile(shape, left, rhs, i64(depth), b.chain, held, target, b.stride)

    def _tile(
        self, shape: MicroShape, lhs: Value, rhs: Value, depth: Value, chain: int, held: Value, target: Value,
        distance: int,
    ) -> None:  # fmt: skip
        """One call of the microkernel, which goes on from what `target` holds where sums wait there."""
        resume = TRUE if held == target else FALSE
        arguments = [
            lhs, rhs, i64(shape.columns), depth, i64(chain), held, resume, target, i64(distance), NULL, NULL, i64(1)
        ]  # fmt: skip
        self.writer.call(micro_name(self.dtype, shape), "void", arguments)

    def _weights(self, block: _Block, is_open: Value) -> None:
        """The pass over the rows of a block."""
        w = self.writer
        if is_open == FALSE:
            self._pass(block, self.work)
            return
        with w.when(is_open):
            self._pass(block, self.open_work)
        with w.when(w.negated(is_open)):
            self._pass(block, self.work)

    def _pass(self, block: _Block, work: Sequence[Store]) -> None:
        w, kind = self.writer, self.dtype.llvm
        passes = RowPasses(self.grid.column)
        walked = [replace(store, axes=(self.grid.column,)) for store in work]
        names = [(score.buffer, number) for number, (score, _) in enumerate(self.grid.scores)]
        names += [(store.buffer, number) for number, store in enumerate(work)]
        with w.loop(i64(0), block.height) as row:
            line = Scope(self.frame, block.scope, {self.grid.row.name: w.add(block.row, row.index)})
            at = w.mul(row.index, i64(self.blocks.stride))
            kept = {name: w.gep(self.memory[f"matrix{number}"], kind, at) for name, number in names}
            passes.write(line, walked, kept, block.column, w.add(block.column, block.count))


def _size(axis: Axis) -> int:
    assert isinstance(axis.extent, int)
    return axis.extent
