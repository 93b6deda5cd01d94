"""Products of few rows whose operands lie along k: each result is a sum along vectors, added across lanes at its end.

A task is some neighbouring columns. It packs lhs, sums a few columns of all rows at a time, and stores what it has row by row.
"""

from __future__ import annotations

from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.combine import across_each
from pierian.compiler.codegen.contraction.microkernel import accumulate
from pierian.compiler.codegen.contraction.packing import pack_rows
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i64, vector
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Kernel, Store
from pierian.compiler.schedule.contraction import Roles
from pierian.compiler.schedule.dots import Dots

# Bytes of rhs below which a product stays on the calling thread: 4 us of reading it from cache.
SMALL_WORK = 1 << 17


def emit_dots(kernel: Kernel, name: str, roles: Roles, dots: Dots, isa: str) -> KernelCode:
    """Native code of such a contraction."""
    emitter = _Emitter(f"{name}_f", kernel, roles, dots, isa)
    emitter.emit()
    note = (
        f"contraction {dots.rows} x {dots.columns} x {dots.depth}, {dots.group} columns at a time along the vectors of both "
        f"operands, tasks of {dots.task} columns, chains of {dots.chain}"
    )
    work = roles.batch_count * dots.columns * (dots.depth * roles.rhs.dtype.itemsize)
    phase = Phase(f"{name}_f", roles.batch_count * dots.tasks, isinstance(work, int) and work <= SMALL_WORK)
    scratch = dots.rows * (dots.stride + dots.task) * roles.reduce.value.dtype.itemsize
    return KernelCode(
        emitter.writer.finish(), frozenset(emitter.writer.declarations), (phase,), 0, scratch, (note,)
    )  # fmt: skip


class _Emitter:
    def __init__(self, name: str, kernel: Kernel, roles: Roles, dots: Dots, isa: str) -> None:
        self.writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=isa)
        self.frame = Frame(self.writer, kernel, dots.lanes, Dependencies())
        self.roles = roles
        self.dots = dots
        self.dtype = roles.reduce.value.dtype
        self.stores = [statement for statement in kernel.body if isinstance(statement, Store)]

    def emit(self) -> None:
        """Task: batch, columns."""
        w, r, d = self.writer, self.roles, self.dots
        scope = Scope(self.frame)
        columns, tasks = scope.dim(d.columns), scope.dim(d.tasks)
        for axis in r.batch:
            scope.dim(axis.extent)
        self.sums = w.gep(w.arg("scratch"), self.dtype.llvm, i64(d.rows * d.stride))
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            batch = w.op("sdiv", task.index, tasks)
            first = w.mul(w.sub(task.index, w.mul(batch, tasks)), i64(d.task))
            width = w.minimum(w.sub(columns, first), i64(d.task))
            inside = Scope(self.frame, scope, unravel(scope, batch, r.batch))
            zero, all_ = i64(0), (i64(d.rows), i64(d.depth))
            pack_rows(inside, r.lhs, r.m, r.k, (zero, zero), all_, w.arg("scratch"), i64(d.stride))
            whole = w.sub(width, w.op("srem", width, i64(d.group)))
            with w.loop(zero, whole, d.group) as group:
                self._columns(inside, first, group.index, d.group)
            with w.loop(whole, width) as single:
                self._columns(inside, first, single.index, 1)
            self._finish(inside, first, width)
        w.ret()

    def _columns(self, scope: Scope, first: Value, at: Value, count: int) -> None:
        """The sums of all rows and `count` columns."""
        w, r, d = self.writer, self.roles, self.dots
        zero = constant(0, self.dtype.llvm, d.lanes)
        points, later = [], []
        for i in range(count):
            column = w.add(first, w.add(at, i64(i)))
            points.append(Scope(self.frame, scope, {r.n.name: column}))
            points[-1].hoist([r.rhs], [r.k.name])
            later.append(Scope(self.frame, scope, {r.n.name: w.add(column, i64(count))}))
        for begin in range(0, d.depth, d.chain):
            end = min(begin + d.chain, d.depth)
            whole = begin + (end - begin) // d.lanes * d.lanes
            with w.loop(i64(begin), i64(whole), d.lanes, [zero] * (d.rows * count)) as loop:
                for point in later if d.ahead and r.rhs.op == "load" else ():
                    Scope(self.frame, point, {r.k.name: loop.index}).prefetch(r.rhs)
                loop.next = self._products(points, loop.index, loop.carried, masked=False)
            sums = loop.results
            if whole < end:
                sums = self._products(points, i64(whole), sums, masked=True)
            for start in range(0, len(sums), d.lanes):
                totals = across_each(w, "sum", self.dtype, sums[start : start + d.lanes])
                for lane in range(min(d.lanes, len(sums) - start)):
                    self._keep(w.extract(totals, lane), divmod(start + lane, count), at, begin > 0)

    def _keep(self, total: Value, cell: tuple[int, int], at: Value, resume: bool) -> None:
        """A sum at (row, column from `at` on) to where the task's wait; with `resume` it is added to what is there."""
        w, size = self.writer, self.dtype.itemsize
        place = w.gep(self.sums, self.dtype.llvm, w.add(at, i64(cell[0] * self.dots.task + cell[1])))
        if resume:
            total = w.op("fadd" if self.dtype.is_float else "add", w.load(place, self.dtype.llvm, size), total)
        w.store(total, place, size)

    def _products(self, points: list[Scope], at: Value, sums: list[Value], masked: bool) -> list[Value]:
        w, r, d = self.writer, self.roles, self.dots
        type_ = vector(self.dtype.llvm, d.lanes)
        right = []
        for point in points:
            inside = Scope(self.frame, point, {r.k.name: at}, r.k.name)
            inside.mask = inside.tail_mask(at, i64(d.depth)) if masked else None
            right.append(inside.vector(r.rhs))
        found = []
        for row in range(d.rows):
            place = w.gep(w.arg("scratch"), self.dtype.llvm, w.add(at, i64(row * d.stride)))
            left = w.load(place, type_, self.dtype.itemsize)
            for column, value in enumerate(right):
                found.append(accumulate(w, self.dtype, left, value, sums[row * len(right) + column]))
        return found

    def _finish(self, scope: Scope, first: Value, width: Value) -> None:
        """The task's results, row by row in vectors, the last of them masked."""
        w, d = self.writer, self.dots
        whole = w.op("and", width, i64(-d.lanes))
        for row in range(d.rows):
            with w.loop(i64(0), whole, d.lanes) as column:
                self._store(scope, row, first, column.index, None)
            with w.when(w.cmp("icmp slt", whole, width)):
                self._store(scope, row, first, whole, width)

    def _store(self, scope: Scope, row: int, first: Value, column: Value, width: Value | None) -> None:
        w, r, d = self.writer, self.roles, self.dots
        inside = Scope(self.frame, scope, {r.m.name: i64(row), r.n.name: w.add(first, column)}, r.n.name)
        inside.mask = inside.tail_mask(column, width) if width is not None else None
        place = w.gep(self.sums, self.dtype.llvm, w.add(column, i64(row * d.task)))
        sums = w.load(place, vector(self.dtype.llvm, d.lanes), self.dtype.itemsize)
        inside.define(ir.reduced(r.reduce.name, self.dtype), sums)
        for store in self.stores:
            inside.store(store.buffer, store.indices, store.value)
