"""Where the tiles of a block read their operands, packed or as they lie, and what they fetch for those that come later."""

from __future__ import annotations

from pierian.compiler.codegen.contraction.microkernel import MicroShape, ahead_bytes
from pierian.compiler.codegen.contraction.parts import Part, panel_count, panel_elements
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.writer import NULL, Value, i64
from pierian.compiler.dim import Dim, maximum
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.scalar import load_parts
from pierian.compiler.schedule.contraction import UNROLL, Tiling
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.target.features import CACHE_LINE


@frozen
class Block:
    """What a task computes: first points and counts along m, the axes `rows`, and n; `tall` are its rows in tiles of full height."""

    first_row: Value
    height: Value
    tall: Value
    first_point: Value
    points: Value
    first_column: Value
    width: Value
    rhs_batch: Value


class TileOperands:
    """What `BlockEmitter` knows of operands.

    Attributes:
        row_step, depth_step: distances of lhs along the rows of a tile and along k.
        point_elements: elements of lhs packed for one point of the axes `rows`, and `tile_elements` of one tile.
        segmented: whether a table says where the segments of lhs begin.
        has_narrow: whether the last panel has so few columns that one vector of each row is enough.
        packs_panels: whether tasks pack panels of rhs, `panel_size` elements each.
        packs_on_the_way: whether the first tile of a full panel does: where it can read rhs as it lies.
        in_place: whether a run reads full panels of rhs where they lie, where it decides that.
        panel, table: where panels and the table are.
    """

    outermost: Scope
    in_place: Value | None
    panel: Value
    table: Value

    def __init__(self, frame: Frame, roles: Roles, tiling: Tiling) -> None:
        self.writer = frame.writer
        self.frame = frame
        self.roles = roles
        self.tiling = t = tiling
        self.dtype = roles.reduce.value.dtype
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
        n = roles.n.extent
        self.has_narrow = isinstance(n, int) and t.nr == 2 * t.lanes and n > t.nr and 0 < n % t.nr <= t.lanes
        self.packs_panels = t.rhs_in_place == "panel by panel"
        self.packs_on_the_way = self.packs_panels and t.panels == 1 and roles.rhs_step is not None
        self.panel_size = t.part * t.nr if self.packs_panels else 0

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

    def _later(self, scope: Scope, block: Block, part: Part, point: Value) -> Value:
        """Where the values of lhs begin for the block's first row at the next point: of this block or the next one; where tiles lie
        along m, after the block's last that of the next part."""
        w, r = self.writer, self.roles
        assert r.lhs_steps is not None
        following = w.add(point, i64(1))
        onward = i64(0)
        if r.lhs_steps[1] != 1:
            ends = w.cmp("icmp sge", following, block.points)
            following = w.select(ends, i64(0), following)
            segment = w.minimum(w.add(part.segment, part.segments), self.outermost.dim(last_segment(r)))
            here, there = (w.load(w.gep(self.table, "i64", at), "i64", 8) for at in (part.segment, segment))
            onward = w.select(ends, w.sub(there, here), i64(0))
        rows = unravel(self.outermost, w.add(block.first_point, following), r.rows)
        first = self._lhs_address(Scope(self.frame, scope, rows), block, part, following)
        return w.gep(first, self.dtype.llvm, onward)

    def _later_tile(self, block: Block, row: Value, lhs: Value, later: Value) -> Value:
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

    def _following(self, block: Block, part: Part, first_column: Value, last: Value) -> Value:
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

    def _panel_address(self, block: Block, row: Value, first_column: Value) -> Value:
        """Where product `row` of the packed panel of some column lies."""
        w, r, t = self.writer, self.roles, self.tiling
        panels = w.mul(block.rhs_batch, self.outermost.dim(panel_count(r, t)))
        panel = w.add(panels, w.op("sdiv", first_column, i64(t.nr)))
        at = w.add(w.mul(panel, self.outermost.dim(panel_elements(r, t))), w.mul(row, i64(t.nr)))
        shared = self.frame.parameters.shared
        if t.rhs_in_place == "panels":
            shared = self.frame.parameters.buffers[load_parts(r.rhs)[0]]
        return w.gep(shared, self.dtype.llvm, at)

    def _lhs_address(self, scope: Scope, block: Block, part: Part, point: Value) -> Value:
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
        self, scope: Scope, block: Block, part: Part, first_column: Value, columns: Value
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


def last_segment(roles: Roles) -> Dim:
    return maximum(roles.segment_count, 1) - 1
