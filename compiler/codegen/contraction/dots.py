"""Products of few rows whose operands lie along k: each result is a sum along vectors, added across lanes at its end.

A task is some neighbouring columns. Part by part of the sum it multiplies them by the rows of lhs, a register tile at a time; the
sums wait in the worker's scratch memory, where the epilogue takes them. If lhs does not lie along k, it is copied before, in a phase
of its own. The order of additions depends on sizes only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.combine import across_each
from pierian.compiler.codegen.contraction.microkernel import accumulate
from pierian.compiler.codegen.contraction.packing import pack_rows
from pierian.compiler.codegen.contraction.small import SMALL_PACKING, SMALL_WORK, is_at_most
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.turns import turns
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dim import Dim, ceildiv, product
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Kernel, Store
from pierian.compiler.kernel.scalar import load_parts
from pierian.compiler.schedule.dots import Dots
from pierian.compiler.schedule.roles import Roles, plain_load

# Bytes of rhs below which a product stays on the calling thread: 4 us.
SMALL_BYTES = 1 << 17

# A vector of an operand's row from some product on; lanes outside the mask are zero.
Line = Callable[[Value, "Value | None"], Value]


def emit_dots(kernel: Kernel, name: str, roles: Roles, dots: Dots, isa: str) -> KernelCode:
    """Native code of such a contraction."""
    sums = _Emitter(f"{name}_d", kernel, roles, dots, isa)
    sums.emit_sums()
    emitters, phases = [sums], []
    if dots.packed:
        packing = _Emitter(f"{name}_p", kernel, roles, dots, isa)
        packing.emit_packing()
        emitters.append(packing)
        phases.append(Phase(f"{name}_p", packing.lhs_points, is_at_most(packing.shared, SMALL_PACKING * 4)))
    elements = product([axis.extent for axis in (*dots.outer, roles.n, roles.k)])
    size, work = elements * roles.rhs.dtype.itemsize, elements * roles.m.extent
    phases.append(Phase(f"{name}_d", sums.tasks, is_at_most(size, SMALL_BYTES) and is_at_most(work, SMALL_WORK)))
    rows = roles.m.extent if isinstance(roles.m.extent, int) else f"{roles.m.extent} up to {dots.most}"
    note = (
        f"contraction {rows} x {roles.n.extent} x {roles.k.extent} along the vectors of both operands, tile {dots.rows} x "
        f"{dots.columns}, tasks of {dots.task} columns in parts of {dots.part}{', columns far apart' if dots.abreast else ''}, "
        f"lhs {'packed along k' if dots.packed else 'in place'}"
    )
    return KernelCode.of([emitter.writer for emitter in emitters], phases, note, sums.shared, sums.scratch)


class _Emitter:
    """Writes one phase."""

    def __init__(self, name: str, kernel: Kernel, roles: Roles, dots: Dots, isa: str) -> None:
        self.writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=isa)
        self.frame = Frame(self.writer, kernel, dots.lanes, Dependencies())
        self.roles = roles
        self.dots = dots
        self.dtype = roles.reduce.value.dtype
        self.stores = [statement for statement in kernel.body if isinstance(statement, Store)]
        # Rows there is room for, some perhaps beyond the last.
        self.room = -(-dots.most // dots.rows) * dots.rows
        # Sums wait as results lie: row by row, or column by column.
        self.turned = dots.most > 1 and self._results_lie_along(roles.m.name)
        across, along = (dots.task, self.room) if self.turned else (self.room, dots.task)
        self.distance = along + dots.lanes
        self.scratch = across * self.distance * self.dtype.itemsize
        # Packed rows lie off a power of two, so that they do not share cache sets.
        self.stride = ceildiv(roles.k.extent, 8 * dots.lanes) * (8 * dots.lanes) + dots.lanes
        self.is_plain = plain_load(kernel, roles.rhs) is not None
        self.scope = Scope(self.frame)
        for size in (
            *(axis.extent for axis in kernel.axes),
            roles.k.extent,
            self._blocks,
            self.stride,
            self.room * self.stride,
        ):
            self.scope.dim(size)
        self.rows, self.depth = self.scope.dim(roles.m.extent), self.scope.dim(roles.k.extent)

    def _results_lie_along(self, axis: str) -> bool:
        places = [address(self.frame.buffers[store.buffer], store.indices).known for store in self.stores]
        return all(step(place, axis) == 1 for place in places)

    @property
    def _blocks(self) -> Dim:
        return ceildiv(self.roles.n.extent, self.dots.task)

    @property
    def tasks(self) -> Dim:
        """Blocks of columns, at all outer points."""
        return product([axis.extent for axis in self.dots.outer]) * self._blocks

    @property
    def lhs_points(self) -> Dim:
        """How many matrices lhs has."""
        return product([axis.extent for axis in self.dots.lhs_outer])

    @property
    def shared(self) -> Dim:
        """Bytes of lhs once packed."""
        return self.lhs_points * (self.room * self.dtype.itemsize) * self.stride if self.dots.packed else 0

    # --- lhs -----------------------------------------------------------------------------------------------------

    def emit_packing(self) -> None:
        """Task: one matrix."""
        w, r = self.writer, self.roles
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            inside = Scope(self.frame, self.scope, unravel(self.scope, task.index, self.dots.lhs_outer))
            begin, count = (i64(0), i64(0)), (self.rows, self.depth)
            stride = self.scope.dim(self.stride)
            pack_rows(inside, r.lhs, r.m, r.k, begin, count, self._packed(task.index, i64(0)), stride)
        w.ret()

    def _packed(self, number: Value, row: Value) -> Value:
        """Where a row of a packed matrix begins."""
        w = self.writer
        stride, size = self.scope.dim(self.stride), self.scope.dim(self.room * self.stride)
        at = w.add(w.mul(number, size), w.mul(row, stride))
        return w.gep(self.frame.parameters.shared, self.dtype.llvm, at)

    # --- sums ----------------------------------------------------------------------------------------------------

    def emit_sums(self) -> None:
        """Task: outer point, columns."""
        w, d = self.writer, self.dots
        blocks, columns = self.scope.dim(self._blocks), self.scope.dim(self.roles.n.extent)
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            point = w.op("sdiv", task.index, blocks)
            first = w.mul(w.sub(task.index, w.mul(point, blocks)), i64(d.task))
            count = w.minimum(w.sub(columns, first), i64(d.task))
            inside = Scope(self.frame, self.scope, unravel(self.scope, point, d.outer))
            if isinstance(self.roles.k.extent, int) and self.roles.k.extent <= d.part:
                self._part(inside, first, count, i64(0), self.depth)
            else:
                with w.loop(i64(0), self.depth, d.part) as part:
                    end = w.minimum(w.add(part.index, i64(d.part)), self.depth)
                    self._part(inside, first, count, part.index, end)
            self._results(inside, first, count)
        w.ret()

    def _part(self, scope: Scope, first: Value, count: Value, begin: Value, end: Value) -> None:
        """Products begin <= k < end of a task."""
        w, r, d = self.writer, self.roles, self.dots
        length = w.sub(end, begin)
        last = w.sub(self.scope.dim(r.n.extent), i64(1))
        with turns(w, i64(0), count, d.columns, d.abreast) as (places, step):
            # Columns beyond the last repeat it; nobody looks at their sums.
            at = [w.minimum(w.add(first, place), last) for place in places]
            columns = [self._rhs_line(scope, one, begin) for one in at]
            after = [w.add(one, i64(step)) for one in at] if d.ahead and self.is_plain else []
            following = [self._address(scope, r.rhs, r.n.name, one, begin) for one in after]

            def tile(row: Value, height: int, places: Sequence[Value] = places) -> None:
                rows = self._lhs_lines(scope, row, height, begin)
                self._keep(self._tile(rows, columns, following, length), height, row, places, begin)

            if isinstance(r.m.extent, int):
                with w.loop(i64(0), i64(self.room), d.rows) as row:
                    tile(row.index, d.rows)
            else:
                whole = w.round_down(self.rows, d.rows)
                with w.loop(i64(0), whole, d.rows) as row:
                    tile(row.index, d.rows)
                with w.loop(whole, self.rows) as row:
                    tile(row.index, 1)

    def _address(self, scope: Scope, operand: ir.Scalar, axis: str, row: Value, begin: Value) -> Value:
        """Where the products of a row of a plain operand begin."""
        name, indices = load_parts(operand)
        place = Scope(self.frame, scope, {axis: row, self.roles.k.name: begin})
        known = address(self.frame.buffers[name], indices).known
        return self.writer.gep(self.frame.parameters.buffers[name], self.dtype.llvm, place.dim(known))

    def _rhs_line(self, scope: Scope, column: Value, begin: Value) -> Line:
        w, r = self.writer, self.roles
        if self.is_plain:
            return self._line(self._address(scope, r.rhs, r.n.name, column, begin))
        point = Scope(self.frame, scope, {r.n.name: column})
        point.hoist([r.rhs], [r.k.name])
        zero = constant(0, self.dtype.llvm, self.dots.lanes)

        def computed(at: Value, mask: Value | None) -> Value:
            inside = Scope(self.frame, point, {r.k.name: w.add(begin, at)}, r.k.name, mask)
            found = inside.vector(r.rhs)
            return found if mask is None else w.select(mask, found, zero)

        return computed

    def _lhs_lines(self, scope: Scope, first: Value, height: int, begin: Value) -> list[Line]:
        """Those of a tile; rows beyond the last repeat it."""
        w, r, d = self.writer, self.roles, self.dots
        rows = [w.add(first, i64(i)) for i in range(height)]
        if isinstance(r.m.extent, int) and r.m.extent != self.room:
            rows = [w.minimum(row, i64(r.m.extent - 1)) for row in rows]
        if not d.packed:
            return [self._line(self._address(scope, r.lhs, r.m.name, row, begin)) for row in rows]
        number = i64(0)
        for axis in d.lhs_outer:
            number = w.add(w.mul(number, self.scope.dim(axis.extent)), scope.values[axis.name])
        return [self._line(w.gep(self._packed(number, row), self.dtype.llvm, begin)) for row in rows]

    def _line(self, start: Value) -> Line:
        w, dtype = self.writer, self.dtype
        type_ = vector(dtype.llvm, self.dots.lanes)

        def loaded(at: Value, mask: Value | None) -> Value:
            place = w.gep(start, dtype.llvm, at)
            if mask is None:
                return w.load(place, type_, dtype.itemsize)
            return w.masked_load(place, type_, dtype.itemsize, mask)

        return loaded

    def _tile(
        self, rows: Sequence[Line], columns: Sequence[Line], following: Sequence[Value], length: Value
    ) -> list[Value]:
        """The sums of all rows by all columns, each still spread over the lanes of a vector."""
        w, d = self.writer, self.dots
        whole = w.round_down(length, d.lanes)
        starts = [constant(0, self.dtype.llvm, d.lanes)] * (len(rows) * len(columns))
        with w.loop(i64(0), whole, d.lanes, starts) as loop:
            for line in following:
                w.prefetch(w.gep(line, self.dtype.llvm, loop.index))
            loop.next = self._products(rows, columns, loop.index, loop.carried, None)
        if isinstance(self.roles.k.extent, int) and self.roles.k.extent % d.lanes == 0:
            return loop.results
        with w.loop(whole, length, d.lanes, loop.results) as rest:
            mask = self.scope.tail_mask(rest.index, length)
            rest.next = self._products(rows, columns, rest.index, rest.carried, mask)
        return rest.results

    def _products(
        self, rows: Sequence[Line], columns: Sequence[Line], at: Value, sums: Sequence[Value], mask: Value | None
    ) -> list[Value]:
        right = [column(at, mask) for column in columns]
        found = iter(sums)
        following = []
        for row in rows:
            left = row(at, mask)
            following += [accumulate(self.writer, self.dtype, left, one, next(found)) for one in right]
        return following

    # --- results -------------------------------------------------------------------------------------------------

    def _place(self, row: Value, column: Value) -> Value:
        """Where a sum waits."""
        w = self.writer
        across, along = (column, row) if self.turned else (row, column)
        return w.gep(w.arg("scratch"), self.dtype.llvm, w.add(w.mul(across, i64(self.distance)), along))

    def _keep(self, sums: Sequence[Value], height: int, row: Value, columns: Sequence[Value], begin: Value) -> None:
        """The sums of a tile stored, or with a later part added to what waits."""
        w, d = self.writer, self.dots
        cells = [(i, j) for i in range(height) for j in range(d.columns)]
        neighbours = 1 if d.abreast else d.columns
        if self.turned:
            cells.sort(key=lambda cell: cell[::-1])
            neighbours = height
        ordered = [sums[i * d.columns + j] for i, j in cells]
        totals = [
            across_each(w, "sum", self.dtype, ordered[at : at + d.lanes]) for at in range(0, len(ordered), d.lanes)
        ]
        for at in range(0, len(cells), neighbours):
            i, j = cells[at]
            place = self._place(w.add(row, i64(i)), columns[j])
            piece = self._piece(totals, at, neighbours)
            if begin.text != "0":
                held = w.load(place, piece.type, self.dtype.itemsize)
                total = w.op("fadd" if self.dtype.is_float else "add", held, piece)
                piece = w.select(w.cmp("icmp eq", begin, i64(0)), piece, total)
            w.store(piece, place, self.dtype.itemsize)

    def _piece(self, vectors: Sequence[Value], first: int, count: int) -> Value:
        """Some lanes of vectors that follow each other."""
        w, lanes = self.writer, self.dots.lanes
        if count == 1:
            return w.extract(vectors[first // lanes], first % lanes)
        found, width = list(vectors[first // lanes : (first + count - 1) // lanes + 1]), lanes
        while len(found) > 2:  # registers of few lanes
            if len(found) % 2:
                found.append(found[-1])
            found = [w.joined(x, y) for x, y in zip(found[::2], found[1::2], strict=True)]
            width *= 2
        order = [first % lanes + lane for lane in range(count)]
        return w.shuffle(order, found[0], found[-1]) if width > 1 else w.joined(*found)

    def _results(self, scope: Scope, first: Value, count: Value) -> None:
        """The epilogue of a task: results in vectors as they lie, the last of a line masked."""
        w, r, d = self.writer, self.roles, self.dots
        across, along = (count, self.rows) if self.turned else (self.rows, count)
        with w.loop(i64(0), across) as line, w.loop(i64(0), along, d.lanes) as loop:
            row, column = (loop.index, line.index) if self.turned else (line.index, loop.index)
            values = {r.m.name: row, r.n.name: w.add(first, column)}
            inside = Scope(self.frame, scope, values, r.m.name if self.turned else r.n.name)
            inside.mask = inside.tail_mask(loop.index, along)
            sums = w.load(self._place(row, column), vector(self.dtype.llvm, d.lanes), self.dtype.itemsize)
            inside.define(ir.reduced(r.reduce.name, self.dtype), sums)
            for store in self.stores:
                inside.store(store.buffer, store.indices, store.value)
