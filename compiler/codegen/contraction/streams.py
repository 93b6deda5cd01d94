"""Products of few rows: the right operand is read once, where it lies, in the order of memory, and memory sets the pace.

The first phase takes some rows of rhs at a time over a stripe of columns whose sums wait in the first cache, in memory of the
worker's own: beside sums that another core works on they would be taken away again and again. A task is a chain of products of one
stripe, and leaves its sums in shared memory. The second phase adds up the chains, in order, and stores.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.contraction.microkernel import accumulate
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.turns import turns, whole_end
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dim import Dim, ceildiv
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Kernel, Store
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.schedule.streams import Stream
from pierian.compiler.target.features import CACHE_LINE

# Results that one task of the second phase stores.
FINISHED = 2048


def emit_stream(kernel: Kernel, name: str, roles: Roles, stream: Stream, isa: str) -> KernelCode:
    """Native code of a contraction of few rows."""
    sums = _Emitter(f"{name}_s", kernel, roles, stream, isa)
    finish = _Emitter(f"{name}_f", kernel, roles, stream, isa)
    sums.emit_sums()
    finish.emit_results()
    tasks = roles.batch_count * stream.chains * stream.stripes
    size = roles.batch_count * stream.chains * stream.rows * stream.distance * roles.reduce.value.dtype.itemsize
    rows = stream.rows if isinstance(roles.m.extent, int) else f"{roles.m.extent} if {stream.rows}"
    note = (
        f"contraction {rows} x {stream.columns} x {stream.depth}, {stream.group} rows of rhs "
        f"{'far apart ' if stream.abreast else ''}at a time over stripes of "
        f"{stream.stripe} columns, chains of {stream.chain}"
    )
    phases = [Phase(f"{name}_s", tasks), Phase(f"{name}_f", roles.batch_count * finish.chunks)]
    scratch = stream.rows * stream.own_distance * roles.reduce.value.dtype.itemsize
    return KernelCode.of([sums.writer, finish.writer], phases, note, size, scratch)


class _Emitter:
    """Writes one phase."""

    def __init__(self, name: str, kernel: Kernel, roles: Roles, stream: Stream, isa: str) -> None:
        self.writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=isa)
        self.frame = Frame(self.writer, kernel, stream.lanes, Dependencies())
        self.roles = roles
        self.stream = stream
        self.dtype = roles.reduce.value.dtype
        self.stores = [statement for statement in kernel.body if isinstance(statement, Store)]
        self.scope = Scope(self.frame)
        s = stream
        self.finished = FINISHED // s.rows // s.lanes * s.lanes  # columns
        self.chunks = ceildiv(s.columns, self.finished)
        sizes = (s.columns, s.depth, s.chains, s.stripes, s.distance, self._chain_size, self.chunks)
        for size in (*(axis.extent for axis in roles.batch), *sizes):
            self.scope.dim(size)
        self.columns, self.depth = self.scope.dim(s.columns), self.scope.dim(s.depth)

    @property
    def _chain_size(self) -> Dim:
        """Elements of the sums of one chain."""
        return self.stream.rows * self.stream.distance

    def emit_sums(self) -> None:
        """Task: batch, chain, stripe, slowest first."""
        w, s = self.writer, self.stream
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            rest, stripe = w.divided(task.index, self.scope.dim(s.stripes))
            batch, chain = w.divided(rest, self.scope.dim(s.chains))
            inside = Scope(self.frame, self.scope, unravel(self.scope, batch, self.roles.batch))
            first = w.mul(stripe, i64(s.stripe))
            end = w.minimum(w.add(first, i64(s.stripe)), self.columns)
            begin = w.mul(chain, i64(s.chain))
            depth = w.minimum(w.add(begin, i64(s.chain)), self.depth)
            sums = self._sums_address(batch, chain)
            own = w.gep(w.arg("scratch"), self.dtype.llvm, w.sub(i64(0), first))
            self._clear(own, first, end)
            whole = whole_end(w, begin, depth, s.group)
            with turns(w, begin, whole, s.group, s.abreast) as (numbers, step):
                self._rows(inside, own, numbers, step, first, end)
            with w.loop(whole, depth) as single:
                self._rows(inside, own, [single.index], 1, first, end)
            self._leave(own, sums, first, end)
        w.ret()

    def emit_results(self) -> None:
        """Task: batch, some columns."""
        w, s = self.writer, self.stream
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            batch, chunk = w.divided(task.index, self.scope.dim(self.chunks))
            inside = Scope(self.frame, self.scope, unravel(self.scope, batch, self.roles.batch))
            first = w.mul(chunk, i64(self.finished))
            end = w.minimum(w.add(first, i64(self.finished)), self.columns)
            sums = self._sums_address(batch, i64(0))
            for begin, limit, masked in self._pieces(first, end):
                with w.loop(begin, limit, s.lanes) as column:
                    for row in range(s.rows):
                        self._finish(inside, sums, row, column.index, end if masked else None)
        w.ret()

    def _pieces(self, first: Value, end: Value) -> list[tuple[Value, Value, bool]]:
        """Whole vectors, then the masked rest."""
        w, lanes = self.writer, self.stream.lanes
        if isinstance(self.stream.columns, int) and self.stream.columns % lanes == 0:
            return [(first, end, False)]
        whole = whole_end(w, first, end, lanes)
        return [(first, whole, False), (whole, end, True)]

    def _sums_address(self, batch: Value, chain: Value) -> Value:
        """Where the sums of a chain begin: [batch, chain, row, column]."""
        w = self.writer
        number = w.add(w.mul(batch, self.scope.dim(self.stream.chains)), chain)
        return w.gep(self.frame.parameters.shared, self.dtype.llvm, w.mul(number, self.scope.dim(self._chain_size)))

    def _place(self, sums: Value, row: int, column: Value) -> Value:
        w = self.writer
        return w.gep(sums, self.dtype.llvm, w.add(column, w.mul(i64(row), self.scope.dim(self.stream.distance))))

    def _own_place(self, own: Value, row: int, column: Value) -> Value:
        return self.writer.gep(own, self.dtype.llvm, self.writer.add(column, i64(row * self.stream.own_distance)))

    def _clear(self, own: Value, first: Value, end: Value) -> None:
        w, s = self.writer, self.stream
        zero = constant(0, self.dtype.llvm, s.lanes)
        with w.loop(first, end, s.lanes) as column:
            for row in range(s.rows):
                w.store(zero, self._own_place(own, row, column.index), self.dtype.itemsize)

    def _leave(self, own: Value, sums: Value, first: Value, end: Value) -> None:
        """The sums of a task to where the second phase finds them."""
        w, s = self.writer, self.stream
        type_ = vector(self.dtype.llvm, s.lanes)
        with w.loop(first, end, s.lanes) as column:
            for row in range(s.rows):
                total = w.load(self._own_place(own, row, column.index), type_, self.dtype.itemsize)
                w.store(total, self._place(sums, row, column.index), self.dtype.itemsize)

    def _rows(self, scope: Scope, own: Value, numbers: Sequence[Value], step: int, first: Value, end: Value) -> None:
        """Add the products of some rows of rhs, over a stripe; the next ones are `step` further."""
        w, r, s = self.writer, self.roles, self.stream
        type_ = vector(self.dtype.llvm, s.lanes)
        points = [Scope(self.frame, scope, {r.k.name: number}) for number in numbers]
        left = [
            [w.splat(Scope(self.frame, point, {r.m.name: i64(row)}).get(r.lhs), s.lanes) for point in points]
            for row in range(s.rows)
        ]
        following = Scope(self.frame, scope, {r.k.name: w.add(numbers[0], i64(step))})
        for begin, limit, masked in self._pieces(first, end):
            with w.loop(begin, limit, s.lanes) as column:
                at = column.index
                # Narrower vectors would ask for each line more than once.
                if s.lanes * self.dtype.itemsize >= CACHE_LINE:
                    Scope(self.frame, following, {r.n.name: at}).prefetch(r.rhs)
                right = []
                for point in points:
                    inside = Scope(self.frame, point, {r.n.name: at}, r.n.name)
                    inside.mask = inside.tail_mask(at, end) if masked else None
                    right.append(inside.vector(r.rhs))
                for row in range(s.rows):
                    place = self._own_place(own, row, at)
                    total = w.load(place, type_, self.dtype.itemsize)
                    w.store(self._plus_products(total, left[row], right), place, self.dtype.itemsize)

    def _plus_products(self, total: Value, left: Sequence[Value], right: Sequence[Value]) -> Value:
        """The products of a group are added up by themselves first: the long sum is rounded once for each group then."""
        w, is_float = self.writer, self.dtype.is_float
        group = w.op("fmul" if is_float else "mul", left[0], right[0])
        for x, y in zip(left[1:], right[1:], strict=True):
            group = accumulate(w, self.dtype, x, y, group)
        return w.op("fadd" if is_float else "add", total, group)

    def _finish(self, scope: Scope, sums: Value, row: int, column: Value, end: Value | None) -> None:
        """The chains of one vector added up, and its stores."""
        w, r, s = self.writer, self.roles, self.stream
        type_ = vector(self.dtype.llvm, s.lanes)
        place = self._place(sums, row, column)
        total = w.load(place, type_, self.dtype.itemsize)
        with w.loop(i64(1), self.scope.dim(s.chains), 1, [total]) as chain:
            at = w.gep(place, self.dtype.llvm, w.mul(chain.index, self.scope.dim(self._chain_size)))
            one = w.load(at, type_, self.dtype.itemsize)
            chain.next = [w.op("fadd" if self.dtype.is_float else "add", chain.carried[0], one)]
        inside = Scope(self.frame, scope, {r.m.name: i64(row), r.n.name: column}, r.n.name)
        inside.mask = inside.tail_mask(column, end) if end is not None else None
        inside.define(ir.reduced(r.reduce.name, self.dtype), chain.results[0])
        for store in self.stores:
            inside.store(store.buffer, store.indices, store.value)
