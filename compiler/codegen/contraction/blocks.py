"""Second phase of a contraction: tasks are blocks of results, computed tile by tile.

A task walks the reduced axes part by part: lhs is packed into the worker's scratch memory where it is not read in place, and so is
each panel of rhs that few other tasks read, if that can be by its first tile on the way; the microkernel runs over the tiles. Sums
that are not complete wait in scratch; after the last part the epilogue takes them row by row, in vectors. Shares of a sum that is
split are left in shared memory, for the third phase to add up. The order of additions depends on sizes only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pierian.compiler.codegen.abi import PHASE_PARAMETERS
from pierian.compiler.codegen.contraction.microkernel import emit_microkernel, micro_name
from pierian.compiler.codegen.contraction.operands import Block, TileOperands, last_segment
from pierian.compiler.codegen.contraction.packing import pack_lhs, pack_part, pack_tiles
from pierian.compiler.codegen.contraction.parts import (
    Part,
    each,
    outermost,
    part_at,
    part_count,
    parts_of_split,
    reads_rhs_in_place,
    split_count,
)
from pierian.compiler.codegen.contraction.results import Place, ResultWriter
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.writer import FALSE, NULL, TRUE, FunctionWriter, Value, i64
from pierian.compiler.dim import Dim, ceildiv
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.schedule.contraction import Tiling, block_height
from pierian.compiler.schedule.roles import Roles

# Products of lhs that are packed before those whose elements are fetched, about: whole segments, as the hardware does not see where
# the next one begins.
PRODUCTS_AHEAD = 24


class BlockEmitter(TileOperands):
    """Writes the function `name`."""

    def __init__(self, name: str, kernel: Kernel, roles: Roles, tiling: Tiling, isa: str, offset: Dim = 0) -> None:
        """`offset`: where in shared memory sums that are split begin, in bytes."""
        writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=isa)
        super().__init__(Frame(writer, kernel, tiling.lanes, Dependencies()), roles, tiling)
        self.offset = offset
        self.results = ResultWriter(self.frame, kernel, roles, tiling)
        t = tiling
        self.split = t.splits > 1
        self.single = part_count(roles, t) == 1 and not self.split
        size = self.dtype.itemsize
        self.panel_offset = _aligned(t.rb * self.point_elements * size)
        self.sums_offset = self.panel_offset + _aligned(self.panel_size * t.panels * size)
        waiting = 0 if self.single or self.split else _aligned(self.sums_size * size)
        self.table_offset = self.sums_offset + waiting

    @property
    def blocks(self) -> Dim:
        """How many blocks at one point of the batch."""
        r, t = self.roles, self.tiling
        return ceildiv(r.row_count, t.rb) * ceildiv(r.m.extent, t.mb) * ceildiv(r.n.extent, t.nb)

    @property
    def tasks(self) -> Dim:
        """How many blocks and splits of them, the splits slower than the blocks."""
        return self.roles.batch_count * split_count(self.roles, self.tiling) * self.blocks

    @property
    def sums_size(self) -> int:
        """Elements of the sums of a block."""
        return self.tiling.rb * self.tiling.mb * self.tiling.nb

    @property
    def shared(self) -> Dim:
        """Bytes of shared memory for the sums that are split."""
        return self.tasks * (self.sums_size * self.dtype.itemsize) if self.split else 0

    @property
    def scratch(self) -> Dim:
        """Bytes each worker needs."""
        return self.table_offset + ((last_segment(self.roles) + 1) * 8 if self.segmented else 0)

    def microkernels(self) -> list[FunctionWriter]:
        """The functions that compute tiles, one for each height and width."""
        t = self.tiling
        heights = [t.mr, *(height for height in (t.tail, t.low) if height)]
        widths = (False, True) if self.has_narrow else (False,)
        found = [emit_microkernel(self.dtype, self._micro(height, narrow)) for height in heights for narrow in widths]
        return [*found, emit_microkernel(self.dtype, self._packing_micro)] if self.packs_on_the_way else found

    def emit(self) -> FunctionWriter:
        """The phase's function."""
        r, t = self.roles, self.tiling
        w = self.writer
        scope = self.outermost = outermost(self.frame, r, t)
        scratch = w.arg("scratch")
        self.panel = w.gep(scratch, "i8", i64(self.panel_offset))
        self.sums = w.gep(scratch, "i8", i64(self.sums_offset))
        self.table = w.gep(scratch, "i8", i64(self.table_offset))
        self.tile = w.alloca(self.dtype.llvm, t.mr * t.nr)
        self.in_place = reads_rhs_in_place(scope, r, t)
        if self.segmented:
            self._write_table(scope)
        self._tasks(scope)
        w.ret()
        return w

    # --- blocks --------------------------------------------------------------------------------------------------

    def _tasks(self, scope: Scope) -> None:
        w, r, t = self.writer, self.roles, self.tiling
        blocks, splits = self._look_up_sizes(scope)
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            rest, split = task.index, i64(0)
            if self.split:
                rest, number = w.divided(rest, blocks)
                rest, split = w.divided(rest, splits)
                rest = w.add(w.mul(rest, blocks), number)
                self.sums = self._shared_sums(scope, task.index)
            inside, block = self._block(scope, rest)
            begin, end = parts_of_split(scope, r, t, split)
            with each(inside, w.sub(end, begin)) as index:
                part = part_at(scope, r, t, w.add(begin, index), begin, end)
                if not t.lhs_in_place:
                    self._pack_lhs(inside, block, part)
                self._tiles(inside, block, part)

    def _look_up_sizes(self, scope: Scope) -> tuple[Value, Value]:
        """All that tasks are numbered by, computed before the first; of it the blocks and the splits of each."""
        r, t = self.roles, self.tiling
        in_blocks = (ceildiv(r.m.extent, t.mb), ceildiv(r.row_count, t.rb), ceildiv(r.n.extent, t.nb))
        for size in (*in_blocks, block_height(r, t), self.offset if self.split else 0, last_segment(r)):
            scope.dim(size)
        return scope.dim(self.blocks), scope.dim(split_count(r, t))

    def _shared_sums(self, scope: Scope, task: Value) -> Value:
        """Where the sums of a task begin that are split."""
        w = self.writer
        first = w.gep(self.frame.parameters.shared, "i8", scope.dim(self.offset))
        return w.gep(first, self.dtype.llvm, w.mul(task, i64(self.sums_size)))

    def _block(self, scope: Scope, rest: Value) -> tuple[Scope, Block]:
        """The block of a number, and a scope with its point of the batch. Neighbours share columns: rhs stays in cache."""
        w, r, t = self.writer, self.roles, self.tiling
        rows, columns, points = scope.dim(r.m.extent), scope.dim(r.n.extent), scope.dim(r.row_count)
        most_rows = scope.dim(block_height(r, t))
        rest, row_block = w.divided(rest, scope.dim(ceildiv(r.m.extent, t.mb)))
        rest, point_block = w.divided(rest, scope.dim(ceildiv(r.row_count, t.rb)))
        rest, column_block = w.divided(rest, scope.dim(ceildiv(r.n.extent, t.nb)))
        values = unravel(scope, rest, r.batch)
        number = i64(0)
        for axis in r.rhs_batch:
            number = w.add(w.mul(number, scope.dim(axis.extent)), values[axis.name])
        first_row = w.mul(row_block, most_rows)
        height = w.minimum(w.sub(rows, first_row), most_rows)
        first_point = w.mul(point_block, i64(t.rb))
        first_column = w.mul(column_block, i64(t.nb))
        block = Block(
            first_row, height, self._tall(height),
            first_point, w.minimum(w.sub(points, first_point), i64(t.rb)) if r.rows else i64(1),
            first_column, w.minimum(w.sub(columns, first_column), i64(t.nb)), number,
        )  # fmt: skip
        return Scope(self.frame, scope, values), block

    def _tall(self, height: Value) -> Value:
        """Rows of a block that tiles of full height take. A last tile takes what is left, or low tiles do, as many as leave the
        fewest rows beyond the block."""
        w, t = self.writer, self.tiling
        if t.tail:
            return w.round_down(height, t.mr)
        if not t.low:
            return height
        found, fewest = i64(0), i64(0)
        for low in range(t.mr // math.gcd(t.mr, t.low)):  # more of them have the rows of whole tall tiles
            left = w.intrinsic("llvm.smax", w.sub(height, i64(low * t.low - t.mr + 1)), i64(0))
            tall = w.mul(w.op("sdiv", left, i64(t.mr)), i64(t.mr))
            total = w.add(tall, i64(low * t.low))
            better = w.cmp("icmp slt", total, fewest) if low else TRUE
            found, fewest = w.select(better, tall, found), w.select(better, total, fewest)
        return found

    def _pack_lhs(self, scope: Scope, block: Block, part: Part) -> None:
        w, r = self.writer, self.roles
        element = self.dtype.llvm
        with each(scope, block.points) as point:
            rows = unravel(self.outermost, w.add(block.first_point, point), r.rows)
            place = w.gep(w.arg("scratch"), element, w.mul(point, i64(self.point_elements)))
            with each(scope, part.segments) as segment:
                values = unravel(self.outermost, w.add(part.segment, segment), r.segments)
                inside = Scope(self.frame, scope, {**rows, **values})
                before = w.mul(w.mul(segment, self.outermost.dim(r.k.extent)), i64(self.depth_step))
                target = w.gep(place, element, before)
                m, k = (block.first_row, block.height), (part.start, part.count)
                if r.rows_contiguous:
                    pack_lhs(inside, r, m, k, target, (self.row_step, self.depth_step))
                else:
                    begin, count, mr = (k[0], m[0]), (k[1], m[1]), self.tiling.mr
                    later = self._segment_ahead(scope, rows, w.add(part.segment, segment)) if r.segments else None
                    pack_tiles(inside, r.lhs, r.k, r.m, begin, count, target, mr, self.tile_elements, later)

    def _segment_ahead(self, scope: Scope, rows: dict[str, Value], segment: Value) -> Scope:
        """The one that is fetched while `segment` is packed."""
        k = self.roles.k.extent
        ahead = -(-PRODUCTS_AHEAD // max(k, 1)) if isinstance(k, int) else 1
        place = unravel(self.outermost, self.writer.add(segment, i64(ahead)), self.roles.segments)
        return Scope(self.frame, scope, {**rows, **place})

    # --- tiles ---------------------------------------------------------------------------------------------------

    def _tiles(self, scope: Scope, block: Block, part: Part) -> None:
        w, t = self.writer, self.tiling
        with self._each_panel(scope, block, part) as column:
            columns = w.minimum(w.sub(block.width, column), i64(t.nr))
            first_column = w.add(block.first_column, column)
            rhs = self._rhs_address(scope, block, part, first_column, columns)
            is_last = w.cmp("icmp sge", w.add(column, i64(t.nr)), block.width) if t.ahead else FALSE
            if not t.has_rows_ahead:
                following, gap = self._following(block, part, first_column, is_last), i64(t.nr)
            else:
                following, gap = self._beside(scope, part, first_column, column, is_last)
            packs_first = self._is_packed_by_tile(block, columns)
            with each(scope, block.points) as point:
                values = unravel(self.outermost, w.add(block.first_point, point), self.roles.rows)
                inside = Scope(self.frame, scope, values)
                lhs = self._lhs_address(inside, block, part, point)
                later = self._later(inside, block, part, point) if t.later else NULL
                sums = self._waiting(point, column)

                def tile(height: int, row: Value, point: Value = point) -> None:
                    number = w.add(w.mul(point, i64(t.mb // t.mr)), w.op("sdiv", row, i64(t.mr)))
                    fetched = self._ahead(part, number, following, gap)
                    ahead = (fetched, gap, self._later_tile(block, row, lhs, later))
                    packs = FALSE
                    if packs_first != FALSE and height == t.mr:
                        packs = w.both(w.cmp("icmp eq", number, i64(0)), packs_first)
                    self._tile(inside, block, part, height, row, lhs, rhs, ahead, sums, first_column, columns, packs)

                self._each_tile(block, tile)

    @contextmanager
    def _each_panel(self, scope: Scope, block: Block, part: Part) -> Iterator[Value]:
        """A loop over the block's columns a panel at a time; those that the task packs itself are packed before, some at once."""
        w, t = self.writer, self.tiling
        if not self.packs_panels:
            with w.loop(i64(0), block.width, t.nr) as column:
                yield column.index
            return
        with w.loop(i64(0), block.width, t.nr * t.panels) as group:
            count = w.minimum(w.sub(block.width, group.index), i64(t.nr * t.panels))
            columns = (w.add(block.first_column, group.index), count)
            size = i64(self.panel_size) if t.panels > 1 else None
            is_left = w.negated(self._is_packed_by_tile(block, count))
            if is_left != FALSE:
                with w.when(is_left):
                    pack_part(self.outermost, scope, self.roles, part, columns, self.panel, t.nr, size)
            if t.panels == 1:
                yield group.index
                return
            with w.loop(group.index, w.add(group.index, count), t.nr) as column:
                yield column.index

    def _is_packed_by_tile(self, block: Block, columns: Value) -> Value:
        """Whether the first tile packs a panel of some columns: one of full height, and the panel full."""
        w, t = self.writer, self.tiling
        if not self.packs_on_the_way:
            return FALSE
        m, n = self.roles.m.extent, self.roles.n.extent
        all_full = isinstance(n, int) and n % t.nr == 0
        all_high = isinstance(m, int) and m > 0 and (m - 1) % t.mb >= t.mr - 1
        full = TRUE if all_full else w.cmp("icmp eq", columns, i64(t.nr))
        return w.both(full, TRUE if all_high else w.cmp("icmp sgt", block.tall, i64(0)))

    def _waiting(self, point: Value, column: Value) -> Value:
        """Where the sums of a column of tiles wait: one tile after the other, each mr x nr."""
        w, t = self.writer, self.tiling
        offset = w.add(w.mul(column, i64(t.rb * t.mb)), w.mul(point, i64(t.mb * t.nr)))
        return w.gep(self.sums, self.dtype.llvm, offset)

    def _each_tile(self, block: Block, tile: Callable[[int, Value], None]) -> None:
        """Calls `tile` with the height and first row of every tile of a column."""
        w, t = self.writer, self.tiling
        with w.loop(i64(0), block.tall, t.mr) as row:
            tile(t.mr, row.index)
        if t.tail:
            with w.when(w.cmp("icmp slt", block.tall, block.height)):
                tile(t.tail, block.tall)
        elif t.low:
            with w.loop(block.tall, block.height, t.low) as row:
                tile(t.low, row.index)

    def _tile(
        self, scope: Scope, block: Block, part: Part, height: int, row: Value, lhs: Value, rhs: tuple[Value, Value],
        fetched: tuple[Value, Value, Value], sums: Value, first_column: Value, columns: Value, packs: Value,
    ) -> None:  # fmt: skip
        w, t = self.writer, self.tiling
        if self.tile_elements:
            at = w.gep(lhs, self.dtype.llvm, w.mul(w.op("sdiv", row, i64(t.mr)), i64(self.tile_elements)))
        else:
            at = w.gep(lhs, self.dtype.llvm, w.mul(row, i64(self.row_step)))
        tile = self.tile if self.single else w.gep(sums, self.dtype.llvm, w.mul(row, i64(t.nr)))
        last = TRUE if self.single else part.last
        resume = FALSE if self.single else w.negated(part.first)
        place = self._place(block, row, height, first_column, columns)
        target, distance, stored = tile, i64(t.nr), FALSE
        direct = None if self.split else self.results.direct(scope, place, height)
        if direct is not None:
            stored = w.both(last, direct[0])
            target, distance = w.select(stored, direct[1], tile), w.select(stored, direct[2], distance)
        if self.segmented:
            depth, table, segments = part.count, w.gep(self.table, "i64", part.segment), part.segments
        else:
            depth, table, segments = w.mul(part.segments, part.count), NULL, i64(1)
        ahead, gap, later = fetched
        arguments = [at, *rhs, depth, i64(t.chain), tile, resume, target, distance, ahead, table, segments]
        if t.has_rows_ahead:
            arguments.append(gap)
        if t.later:
            arguments.append(later)
        if packs != FALSE:
            with w.when(packs):
                source = (self._source(scope, part, first_column), self.outermost.dim(self.roles.rhs_step or 0))
                name = micro_name(self.dtype, self._packing_micro)
                w.call(name, "void", [at, *source, *arguments[3:], self.panel])
        wide = w.cmp("icmp sgt", columns, i64(t.lanes)) if self.has_narrow else TRUE
        usual = w.negated(packs)
        for narrow, chosen in ((False, w.both(usual, wide)), (True, w.both(usual, w.negated(wide)))):
            if chosen != FALSE:
                with w.when(chosen):
                    w.call(micro_name(self.dtype, self._micro(height, narrow)), "void", arguments)
        waiting = FALSE if self.split else w.both(last, w.negated(stored))
        if waiting != FALSE:
            with w.when(waiting):
                self.results.epilogue(scope, tile, place, height)

    def _place(self, block: Block, row: Value, height: int, first_column: Value, columns: Value) -> Place:
        """Of the tile from row `row` of a block on."""
        w = self.writer
        exact = height == self.tiling.tail
        rows = i64(height) if exact else w.minimum(w.sub(block.height, row), i64(height))
        return Place(w.add(block.first_row, row), first_column, rows, columns)


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
