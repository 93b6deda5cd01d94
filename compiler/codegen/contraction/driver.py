"""Contraction kernels: blocks as tasks, packing, microkernel, epilogue.

A task is a block of mb x nb results of one batch point. Along k it goes block by block: pack rhs (kb x nb) and lhs (mb x kb) into
the worker's scratch memory, then run the microkernel tile by tile. Sums that are not complete wait in scratch; after the last
block of k the epilogue takes them row by row, in vectors. The order of additions depends on sizes only.

A product with few rows reads rhs in place where its rows are contiguous: what is used once is not worth packing.
"""

from __future__ import annotations

from dataclasses import replace

from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.access import address
from pierian.compiler.codegen.contraction.microkernel import emit_microkernel
from pierian.compiler.codegen.contraction.packing import pack_panels, pack_rows, pack_transposed
from pierian.compiler.codegen.evaluate import Dependencies, Frame, Scope
from pierian.compiler.codegen.loops.emit import emit_loop
from pierian.compiler.codegen.writer import FALSE, TRUE, FunctionWriter, Value, i64, vector
from pierian.compiler.dim import ceildiv, product
from pierian.compiler.elementary import expand
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Kernel, Store
from pierian.compiler.kernel.scalar import load_parts
from pierian.compiler.schedule.contraction import Roles, Tiling, choose_tiling, classify
from pierian.compiler.target.features import Target

# Rows up to which rhs is read in place; products with more rows pay for packing it.
FEW_ROWS = 48
# Multiplications below which a product stays on the calling thread.
SMALL_WORK = 1 << 18


def emit_contraction(kernel: Kernel, name: str, target: Target) -> KernelCode:
    """Native code of a contraction kernel."""
    roles = classify(kernel)
    if roles.m.extent == 1 or roles.n.extent == 1:
        return emit_loop(replace(kernel, kind="loop"), name, target)  # bound by memory: a row kernel is right
    return _ContractionEmitter(kernel, name, roles, choose_tiling(roles, target), target.isa).emit()


class _ContractionEmitter:
    def __init__(self, kernel: Kernel, name: str, roles: Roles, tiling: Tiling, isa: str) -> None:
        self.isa = isa
        values = expand([statement.value for statement in kernel.body])
        body = tuple(replace(s, value=value) for s, value in zip(kernel.body, values, strict=True))
        self.kernel = replace(kernel, body=body)
        self.lhs, self.rhs = expand([roles.lhs, roles.rhs])
        self.name = name
        self.roles = roles
        self.tiling = tiling
        self.dtype = roles.reduce.value.dtype
        self.stores = [statement for statement in self.kernel.body if isinstance(statement, Store)]
        size = self.dtype.itemsize
        t = tiling
        if roles.rows_contiguous:
            self.row_step, self.depth_step = t.lhs_stride, 1
            self.lhs_elements = t.mb * t.lhs_stride
        else:
            self.row_step, self.depth_step = 1, t.mb + t.lanes
            self.lhs_elements = t.kb * (t.mb + t.lanes)
        padded = t.kb + t.lanes  # transposed squares may write a few rows past the block
        self.panel = padded * t.nr
        self.rhs_elements = self.panel * (t.nb // t.nr)
        self.lhs_offset = 0
        self.rhs_offset = _aligned(self.lhs_elements * size)
        self.sums_offset = self.rhs_offset + _aligned(self.rhs_elements * size)
        self.scratch = self.sums_offset + _aligned(t.mb * t.nb * size)

    def emit(self) -> KernelCode:
        micro = emit_microkernel(f"{self.name}_micro", self.dtype, self.tiling, self.row_step, self.depth_step)
        writer = FunctionWriter(f"{self.name}_f", "void", PHASE_PARAMETERS, isa=self.isa)
        frame = Frame(writer, self.kernel, self.tiling.lanes, Dependencies())
        self.writer, self.frame = writer, frame
        self._tasks(Scope(frame))
        writer.ret()
        r, t = self.roles, self.tiling
        batch = product([axis.extent for axis in r.batch])
        tasks = batch * ceildiv(r.m.extent, t.mb) * ceildiv(r.n.extent, t.nb)
        work = batch * r.m.extent * r.n.extent * r.k.extent
        serial = isinstance(work, int) and work <= SMALL_WORK
        note = (
            f"contraction {r.m.extent} x {r.n.extent} x {r.k.extent}, tile {t.mr} x {t.nr}, block {t.mb} x {t.nb} x {t.kb}, "
            f"lhs along {'k' if r.rows_contiguous else 'm'}, rhs along {'n' if r.columns_contiguous else 'k (transposed)'}"
        )
        if r.rhs_in_place is not None:
            note += f", rhs in place up to {FEW_ROWS} rows"
        declarations = frozenset(writer.declarations | micro.declarations)
        text = micro.finish() + writer.finish()
        return KernelCode(text, declarations, (Phase(f"{self.name}_f", tasks, serial),), 0, self.scratch, (note,))

    # --- blocks --------------------------------------------------------------------------------------------------

    def _tasks(self, scope: Scope) -> None:
        w, r, t = self.writer, self.roles, self.tiling
        rows, columns = scope.dim(r.m.extent), scope.dim(r.n.extent)
        row_blocks, column_blocks = scope.dim(ceildiv(r.m.extent, t.mb)), scope.dim(ceildiv(r.n.extent, t.nb))
        extents = [scope.dim(axis.extent) for axis in r.batch]
        scratch = w.arg("scratch")
        self.lhs_block = scratch
        self.rhs_block = w.gep(scratch, "i8", i64(self.rhs_offset))
        self.sums = w.gep(scratch, "i8", i64(self.sums_offset))
        self.tile = w.alloca(self.dtype.llvm, t.mr * t.nr)
        # Neighbouring tasks share the block of columns: rhs stays in cache.
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            rest = task.index
            row_block = w.op("srem", rest, row_blocks)
            rest = w.op("sdiv", rest, row_blocks)
            column_block = w.op("srem", rest, column_blocks)
            rest = w.op("sdiv", rest, column_blocks)
            values: dict[str, Value] = {}
            for axis, extent in reversed(list(zip(r.batch, extents, strict=True))):
                values[axis.name] = w.op("srem", rest, extent)
                rest = w.op("sdiv", rest, extent)
            first_row = w.mul(row_block, i64(t.mb))
            first_column = w.mul(column_block, i64(t.nb))
            height = w.minimum(w.sub(rows, first_row), i64(t.mb))
            width = w.minimum(w.sub(columns, first_column), i64(t.nb))
            self._block(Scope(self.frame, scope, values), first_row, first_column, height, width, rows)

    def _block(
        self, scope: Scope, first_row: Value, first_column: Value, height: Value, width: Value, rows: Value
    ) -> None:
        w, r, t = self.writer, self.roles, self.tiling
        depth = scope.dim(r.k.extent)
        in_place = self._in_place(scope, rows)
        # An empty k still runs the epilogue once, on zeros.
        blocks = w.intrinsic("llvm.smax", w.op("sdiv", w.add(depth, i64(t.kb - 1)), i64(t.kb)), i64(1))
        with w.loop(i64(0), blocks) as part:
            start = w.mul(part.index, i64(t.kb))
            count = w.minimum(w.sub(depth, start), i64(t.kb))
            self._pack_rhs(scope, in_place, start, count, first_column, width)
            self._pack_lhs(scope, start, count, first_row, height)
            first = w.cmp("icmp ne", part.index, i64(0))
            last = w.cmp("icmp eq", w.add(part.index, i64(1)), blocks)
            place = _Place(first_row, first_column, height, width, start, count, first, last, in_place)
            self._tiles(scope, place)

    def _in_place(self, scope: Scope, rows: Value) -> Value:
        if self.roles.rhs_in_place is None:
            return FALSE
        extent = self.roles.m.extent
        if isinstance(extent, int):
            return TRUE if extent <= FEW_ROWS else FALSE
        return self.writer.cmp("icmp sle", rows, i64(FEW_ROWS))

    def _pack_rhs(
        self, scope: Scope, in_place: Value, start: Value, count: Value, first_column: Value, width: Value
    ) -> None:
        w, r, t = self.writer, self.roles, self.tiling
        if in_place.text == "true":
            # Only the last panel, if it is not full.
            full = w.op("sub", width, w.op("srem", width, i64(t.nr)))
        elif in_place.text == "false":
            full = i64(0)
        else:
            full = w.select(in_place, w.op("sub", width, w.op("srem", width, i64(t.nr))), i64(0))
        begin = (start, w.add(first_column, full))
        left = (count, w.sub(width, full))
        panels = w.op("sdiv", full, i64(t.nr))
        target = w.gep(self.rhs_block, self.dtype.llvm, w.mul(panels, i64(self.panel)))
        pack = pack_panels if r.columns_contiguous else pack_transposed
        pack(Scope(self.frame, scope), self.rhs, r.k, r.n, begin, left, target, t.nr, i64(self.panel))

    def _pack_lhs(self, scope: Scope, start: Value, count: Value, first_row: Value, height: Value) -> None:
        r = self.roles
        inside = Scope(self.frame, scope)
        if r.rows_contiguous:
            pack_rows(
                inside, self.lhs, r.m, r.k, (first_row, start), (height, count), self.lhs_block, i64(self.row_step)
            )
        else:
            pack_rows(
                inside, self.lhs, r.k, r.m, (start, first_row), (count, height), self.lhs_block, i64(self.depth_step)
            )

    # --- tiles ---------------------------------------------------------------------------------------------------

    def _tiles(self, scope: Scope, place: _Place) -> None:
        w, t = self.writer, self.tiling
        element = self.dtype.llvm
        single = isinstance(self.roles.k.extent, int) and self.roles.k.extent <= t.kb
        with w.loop(i64(0), place.width, t.nr) as column:
            panel = w.op("sdiv", column.index, i64(t.nr))
            packed = w.gep(self.rhs_block, element, w.mul(panel, i64(self.panel)))
            columns_left = w.minimum(w.sub(place.width, column.index), i64(t.nr))
            rhs, stride = self._rhs_address(scope, place, packed, column.index, columns_left)
            with w.loop(i64(0), place.height, t.mr) as row:
                lhs = w.gep(self.lhs_block, element, w.mul(row.index, i64(self.row_step)))
                rows_left = w.minimum(w.sub(place.height, row.index), i64(t.mr))
                if single:
                    tile = self.tile
                else:
                    # Tiles lie one after the other, each mr x nr.
                    offset = w.add(w.mul(row.index, i64(t.nr)), w.mul(column.index, i64(t.mb)))
                    tile = w.gep(self.sums, element, offset)
                resume = FALSE if single else place.resume
                w.call(f"{self.name}_micro", "void", [lhs, rhs, stride, place.count, tile, resume])
                first_row = w.add(place.first_row, row.index)
                first_column = w.add(place.first_column, column.index)
                if single:
                    self._epilogue(scope, tile, first_row, first_column, rows_left, columns_left)
                else:
                    with w.when(place.last):
                        self._epilogue(scope, tile, first_row, first_column, rows_left, columns_left)

    def _rhs_address(
        self, scope: Scope, place: _Place, packed: Value, column: Value, columns_left: Value
    ) -> tuple[Value, Value]:
        """Where the microkernel reads rhs and the distance of its rows: the packed panel, or the matrix itself."""
        w, r, t = self.writer, self.roles, self.tiling
        if place.in_place.text == "false" or r.rhs_in_place is None:
            return packed, i64(t.nr)
        name, indices = load_parts(self.rhs)
        buffer = self.frame.buffers[name]
        at = Scope(self.frame, scope, {r.k.name: place.start, r.n.name: w.add(place.first_column, column)})
        known = address(buffer, indices).known
        direct = w.gep(self.frame.parameters.buffers[name], buffer.dtype.llvm, at.dim(known))
        full = w.cmp("icmp eq", columns_left, i64(t.nr))
        use = full if place.in_place.text == "true" else w.op("and", full, place.in_place)
        stride = w.select(use, scope.dim(r.rhs_in_place), i64(t.nr))
        return w.select(use, direct, packed), stride

    def _epilogue(
        self, scope: Scope, tile: Value, first_row: Value, first_column: Value, rows: Value, columns: Value
    ) -> None:
        """The stores, row by row in vectors; a tile at the right edge is masked."""
        w, t = self.writer, self.tiling
        full = w.cmp("icmp eq", columns, i64(t.nr))
        yes, no, done = w.label("full"), w.label("edge"), w.label("stored")
        w.cond_br(full, yes, no)
        w.start(yes)
        self._rows(scope, tile, first_row, first_column, rows, None)
        w.br(done)
        w.start(no)
        self._rows(scope, tile, first_row, first_column, rows, columns)
        w.br(done)
        w.start(done)

    def _rows(
        self, scope: Scope, tile: Value, first_row: Value, first_column: Value, rows: Value, columns: Value | None
    ) -> None:
        w, r, t = self.writer, self.roles, self.tiling
        element = self.dtype.llvm
        total = ir.reduced(r.reduce.name, self.dtype)
        with w.loop(i64(0), rows) as row:
            line = Scope(self.frame, scope, {r.m.name: w.add(first_row, row.index)})
            for offset in range(0, t.nr, t.lanes):
                values = {r.n.name: w.add(first_column, i64(offset))}
                inside = Scope(self.frame, line, values, r.n.name)
                if columns is not None:
                    inside.mask = inside.tail_mask(i64(offset), columns)
                at = w.add(w.mul(row.index, i64(t.nr)), i64(offset))
                sums = w.load(w.gep(tile, element, at), vector(element, t.lanes), self.dtype.itemsize)
                inside.define(total, sums)
                for store in self.stores:
                    inside.store(store.buffer, store.indices, store.value)


class _Place:
    """A block of results and one block of k, as values in the function being written."""

    def __init__(
        self,
        first_row: Value,
        first_column: Value,
        height: Value,
        width: Value,
        start: Value,
        count: Value,
        resume: Value,
        last: Value,
        in_place: Value,
    ) -> None:
        self.first_row = first_row
        self.first_column = first_column
        self.height = height
        self.width = width
        self.start = start
        self.count = count
        self.resume = resume
        self.last = last
        self.in_place = in_place


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
