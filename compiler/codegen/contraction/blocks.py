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
from pierian.compiler.codegen.contraction.microkernel import MicroShape, ahead_bytes, emit_microkernel, micro_name
from pierian.compiler.codegen.contraction.packing import pack_lhs, pack_part, pack_tiles
from pierian.compiler.codegen.contraction.parts import (
    Part,
    each,
    outermost,
    panel_count,
    panel_elements,
    part_at,
    part_count,
    parts_of_split,
    reads_rhs_in_place,
    split_count,
)
from pierian.compiler.codegen.contraction.results import Place, ResultWriter
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.writer import FALSE, NULL, TRUE, FunctionWriter, Value, i64
from pierian.compiler.dim import Dim, ceildiv, maximum
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.scalar import load_parts
from pierian.compiler.schedule.contraction import UNROLL, Tiling, block_height
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.target.features import CACHE_LINE

# Products of lhs that are packed before those whose elements are fetched, about: whole segments, as the hardware does not see where
# the next one begins.
PRODUCTS_AHEAD = 24


@frozen
class _Block:
    """What a task computes: first points and counts along m, the axes `rows`, and n; `tall` are its rows in tiles of full height."""

    first_row: Value
    height: Value
    tall: Value
    first_point: Value
    points: Value
    first_column: Value
    width: Value
    rhs_batch: Value


class BlockEmitter:
    """Writes the function `name`."""

    def __init__(self, name: str, kernel: Kernel, roles: Roles, tiling: Tiling, isa: str, offset: Dim = 0) -> None:
        """`offset`: where in shared memory sums that are split begin, in bytes."""
        self.writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=isa)
        self.frame = Frame(self.writer, kernel, tiling.lanes, Dependencies())
        self.roles = roles
        self.tiling = tiling
        self.offset = offset
        self.dtype = roles.reduce.value.dtype
        self.results = ResultWriter(self.frame, kernel, roles, tiling)
        t = tiling
        self.split = t.splits > 1
        self.single = part_count(roles, t) == 1 and not self.split
        self.tile_elements = 0  # of lhs packed tile by tile
        if t.lhs_in_place:
            assert roles.lhs_steps is not None
            self.row_step, self.depth_step = roles.lhs_steps
            self.point_elements = 0
        elif roles.rows_contiguous:
            self.row_step, self.depth_step = t.lhs_stride, 1
            self.point_elements = t.mb * t.lhs_stride
        else:
            self.row_step, self.depth_step = 1, t.mr
            self.tile_elements = t.part * t.mr + t.lanes
            self.point_elements = -(-t.mb // t.mr) * self.tile_elements
        self.segmented = t.lhs_in_place and t.sb > 1
        # The last panel may have few columns: one vector of each row is enough.
        n = roles.n.extent
        self.has_narrow = isinstance(n, int) and t.nr == 2 * t.lanes and n > t.nr and 0 < n % t.nr <= t.lanes
        size = self.dtype.itemsize
        self.packs_panels = t.rhs_in_place == "panel by panel"
        # The first tile of a full panel packs it on its way, where it can read rhs as it lies.
        self.packs_on_the_way = self.packs_panels and t.panels == 1 and roles.rhs_step is not None
        self.panel_offset = _aligned(t.rb * self.point_elements * size)
        self.panel_size = t.part * t.nr if self.packs_panels else 0
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
        return self.table_offset + ((_last_segment(self.roles) + 1) * 8 if self.segmented else 0)

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

    def _micro(self, height: int, narrow: bool = False) -> MicroShape:
        t = self.tiling
        steps = (self.row_step, self.depth_step)
        return MicroShape(height, t.nr, t.lanes, *steps, self.segmented, t.ahead, narrow, t.has_rows_ahead, t.later)

    @property
    def _packing_micro(self) -> MicroShape:
        return replace(self._micro(self.tiling.mr), packs=True)

    def _write_table(self, scope: Scope) -> None:
        """Where the values of lhs begin for each point of the segment axes, from those of the first point on."""
        w, r = self.writer, self.roles
        known = self._lhs_position()
        with w.loop(i64(0), scope.dim(r.segment_count)) as loop:
            values = unravel(scope, loop.index, r.segments)
            inside = Scope(self.frame, scope, values)
            offset = i64(0)
            for axis in r.segments:
                distance = step(known, axis.name)
                assert distance is not None
                offset = w.add(offset, w.mul(values[axis.name], inside.dim(distance)))
            w.store(offset, w.gep(self.table, "i64", loop.index), 8)

    def _lhs_position(self) -> Dim:
        name, indices = load_parts(self.roles.lhs)
        return address(self.frame.buffers[name], indices).known

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
        for size in (*in_blocks, block_height(r, t), self.offset if self.split else 0, _last_segment(r)):
            scope.dim(size)
        return scope.dim(self.blocks), scope.dim(split_count(r, t))

    def _shared_sums(self, scope: Scope, task: Value) -> Value:
        """Where the sums of a task begin that are split."""
        w = self.writer
        first = w.gep(self.frame.parameters.shared, "i8", scope.dim(self.offset))
        return w.gep(first, self.dtype.llvm, w.mul(task, i64(self.sums_size)))

    def _block(self, scope: Scope, rest: Value) -> tuple[Scope, _Block]:
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
        block = _Block(
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
            return w.sub(height, w.op("srem", height, i64(t.mr)))
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

    def _pack_lhs(self, scope: Scope, block: _Block, part: Part) -> None:
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

    def _tiles(self, scope: Scope, block: _Block, part: Part) -> None:
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
                    if self.packs_on_the_way and height == t.mr:
                        packs = w.both(w.cmp("icmp eq", number, i64(0)), self._is_packed_by_tile(block, columns))
                    self._tile(inside, block, part, height, row, lhs, rhs, ahead, sums, first_column, columns, packs)

                self._each_tile(block, tile)

    @contextmanager
    def _each_panel(self, scope: Scope, block: _Block, part: Part) -> Iterator[Value]:
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

    def _is_packed_by_tile(self, block: _Block, columns: Value) -> Value:
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

    def _each_tile(self, block: _Block, tile: Callable[[int, Value], None]) -> None:
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
        self, scope: Scope, block: _Block, part: Part, height: int, row: Value, lhs: Value, rhs: tuple[Value, Value],
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

    def _place(self, block: _Block, row: Value, height: int, first_column: Value, columns: Value) -> Place:
        """Of the tile from row `row` of a block on."""
        w = self.writer
        exact = height == self.tiling.tail
        rows = i64(height) if exact else w.minimum(w.sub(block.height, row), i64(height))
        return Place(w.add(block.first_row, row), first_column, rows, columns)

    def _ahead(self, part: Part, tile: Value, following: Value, gap: Value) -> Value:
        """What of the panel that is read next one tile of a column fetches: they share it out."""
        w, t = self.writer, self.tiling
        if not t.ahead:
            return following
        if t.has_rows_ahead:
            turn = w.op("srem", tile, i64(-(-UNROLL // t.ahead)))
            rows = w.op("sdiv", w.mul(w.mul(turn, i64(t.ahead)), part.count), i64(UNROLL))
            return w.gep(following, self.dtype.llvm, w.mul(rows, gap))
        products = w.mul(part.segments, part.count)
        return w.gep(following, "i8", w.mul(w.mul(tile, products), i64(ahead_bytes(self._micro(t.mr)))))

    def _later(self, scope: Scope, block: _Block, part: Part, point: Value) -> Value:
        """Where the values of lhs begin for the block's first row at the next point: of this block or the next one; where tiles lie
        along m, after the block's last that of the next part."""
        w, r = self.writer, self.roles
        assert r.lhs_steps is not None
        following = w.add(point, i64(1))
        onward = i64(0)
        if r.lhs_steps[1] != 1:
            ends = w.cmp("icmp sge", following, block.points)
            following = w.select(ends, i64(0), following)
            segment = w.minimum(w.add(part.segment, part.segments), self.outermost.dim(_last_segment(r)))
            here, there = (w.load(w.gep(self.table, "i64", at), "i64", 8) for at in (part.segment, segment))
            onward = w.select(ends, w.sub(there, here), i64(0))
        rows = unravel(self.outermost, w.add(block.first_point, following), r.rows)
        first = self._lhs_address(Scope(self.frame, scope, rows), block, part, following)
        return w.gep(first, self.dtype.llvm, onward)

    def _later_tile(self, block: _Block, row: Value, lhs: Value, later: Value) -> Value:
        """What is fetched for a later tile by the one from row `row` on."""
        w, r, t = self.writer, self.roles, self.tiling
        if not t.later:
            return NULL
        assert r.lhs_steps is not None
        element = self.dtype.llvm
        if r.lhs_steps[1] == 1:
            return w.gep(later, element, w.mul(row, i64(self.row_step)))
        beside = w.add(row, i64(CACHE_LINE // self.dtype.itemsize))
        is_here = w.cmp("icmp slt", beside, block.height)
        return w.gep(w.select(is_here, lhs, later), element, w.select(is_here, beside, w.sub(beside, block.height)))

    def _following(self, block: _Block, part: Part, first_column: Value, last: Value) -> Value:
        """The packed panel read after the one at `first_column`: beside it, or after the block's last the first of the next part."""
        w, t = self.writer, self.tiling
        if not t.ahead:
            return NULL
        beside = self._panel_address(block, part.row, w.add(first_column, i64(t.nr)))
        after = w.add(part.row, w.mul(part.segments, part.count))
        row = w.select(part.last, i64(0), after)
        return w.select(last, self._panel_address(block, row, block.first_column), beside)

    def _beside(self, scope: Scope, part: Part, first_column: Value, column: Value, last: Value) -> tuple[Value, Value]:
        """What lies in rows and is read after the panel `column` columns from the block's first: beside it, or below the block; and
        the distance of its rows."""
        w, r, t = self.writer, self.roles, self.tiling
        assert r.rhs_step is not None
        stride = self.outermost.dim(r.rhs_step)
        below = w.sub(w.mul(part.count, stride), column)
        turns = w.both(last, w.negated(part.last))
        beside = w.select(turns, below, i64(t.nr))
        return w.gep(self._source(scope, part, first_column), self.dtype.llvm, beside), stride

    def _source(self, scope: Scope, part: Part, first_column: Value) -> Value:
        """Where a part of a panel lies that is not packed."""
        name, indices = load_parts(self.roles.rhs)
        place = Scope(self.frame, scope, {self.roles.k.name: part.start, self.roles.n.name: first_column})
        where = place.dim(address(self.frame.buffers[name], indices).known)
        return self.writer.gep(self.frame.parameters.buffers[name], self.dtype.llvm, where)

    def _panel_address(self, block: _Block, row: Value, first_column: Value) -> Value:
        """Where product `row` of the packed panel of some column lies."""
        w, r, t = self.writer, self.roles, self.tiling
        panels = w.mul(block.rhs_batch, self.outermost.dim(panel_count(r, t)))
        panel = w.add(panels, w.op("sdiv", first_column, i64(t.nr)))
        at = w.add(w.mul(panel, self.outermost.dim(panel_elements(r, t))), w.mul(row, i64(t.nr)))
        shared = self.frame.parameters.shared
        if t.rhs_in_place == "panels":
            shared = self.frame.parameters.buffers[load_parts(r.rhs)[0]]
        return w.gep(shared, self.dtype.llvm, at)

    def _lhs_address(self, scope: Scope, block: _Block, part: Part, point: Value) -> Value:
        """Where the values of the block's first row begin: in the matrix, or packed."""
        w, r = self.writer, self.roles
        element = self.dtype.llvm
        if not self.tiling.lhs_in_place:
            return w.gep(w.arg("scratch"), element, w.mul(point, i64(self.point_elements)))
        if self.segmented:  # the table has the distances from the first segment
            segments = {axis.name: i64(0) for axis in r.segments}
        else:
            segments = unravel(self.outermost, part.segment, r.segments)
        place = {r.m.name: block.first_row, r.k.name: part.start, **segments}
        inside = Scope(self.frame, scope, place)
        name, _ = load_parts(self.roles.lhs)
        return w.gep(self.frame.parameters.buffers[name], element, inside.dim(self._lhs_position()))

    def _rhs_address(
        self, scope: Scope, block: _Block, part: Part, first_column: Value, columns: Value
    ) -> tuple[Value, Value]:
        """Where the microkernel reads rhs and the distance of its rows: the packed panel, or the matrix itself."""
        w, r, t = self.writer, self.roles, self.tiling
        if self.packs_panels:
            column = w.sub(first_column, block.first_column)
            number = i64(0) if t.panels == 1 else w.op("sdiv", w.op("srem", column, i64(t.nr * t.panels)), i64(t.nr))
            return w.gep(self.panel, self.dtype.llvm, w.mul(number, i64(self.panel_size))), i64(t.nr)
        packed = self._panel_address(block, part.row, first_column)
        if t.rhs_in_place in ("panels", "never"):
            return packed, i64(t.nr)
        assert r.rhs_step is not None
        direct = self._source(scope, part, first_column)
        stride = self.outermost.dim(r.rhs_step)
        if t.rhs_in_place == "always" and isinstance(r.n.extent, int) and r.n.extent % t.nr == 0:
            return direct, stride
        use = w.cmp("icmp eq", columns, i64(t.nr))
        if self.in_place is not None:
            use = w.op("and", use, self.in_place)
        return w.select(use, direct, packed), w.select(use, stride, i64(t.nr))


def _last_segment(roles: Roles) -> Dim:
    return maximum(roles.segment_count, 1) - 1


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
