"""Small products of many points, a point in each lane: nothing is added across lanes, and no lane stays empty.

Either all products of a point are written out, what is read and stored in whole vectors being separated and joined in registers; or
lanes are neighbours in memory, and a register tile of rows and columns walks the sum, some vectors of points after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.contraction.microkernel import accumulate
from pierian.compiler.codegen.contraction.small import SMALL_WORK, is_at_most
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.interleave import join, separate
from pierian.compiler.codegen.loops.plan import even_share
from pierian.compiler.codegen.turns import whole_end
from pierian.compiler.codegen.writer import TRUE, FunctionWriter, Value, constant, i64, vector
from pierian.compiler.dim import Dim, ceildiv, product, symbol
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel, Store
from pierian.compiler.kernel.scalar import Scalar, load_parts
from pierian.compiler.schedule.contraction import CHAIN
from pierian.compiler.schedule.dots import guess
from pierian.compiler.schedule.lanewise import Block, Lanewise, find_blocks
from pierian.compiler.schedule.roles import Roles

# Multiplications and bytes in one task, about; where lanes are neighbours there are few other points.
TASK_WORK = 1 << 17
TILES_WORK = 1 << 19
TASK_BYTES = 1 << 17
# Sums under way at once, and values that are the same for all lanes and kept in registers, at most.
SUMS = 8
KEPT = 12
# Bytes of one operand's row of points that are walked before the next tile, about.
ROW_BYTES = 1 << 10

# Values of the axes that are written out.
Point = Mapping[str, int]


def emit_lanewise(kernel: Kernel, name: str, roles: Roles, lanewise: Lanewise, isa: str) -> KernelCode:
    """Native code of such a contraction."""
    emitter = (_WrittenOut if lanewise.tile is None else _Tiles)(name, kernel, roles, lanewise, isa)
    emitter.emit()
    axis, r = lanewise.axis, roles
    work = product([one.extent for one in kernel.axes]) * r.depth
    tile = f"tile {lanewise.tile[0]} x {lanewise.tile[1]}" if lanewise.tile else "written out"
    note = (
        f"contraction {r.m.extent} x {r.n.extent} x {r.depth}, a point of {axis.extent} in each of {lanewise.lanes} lanes, "
        f"{tile}, tasks of {emitter.together * emitter.share} points"
    )
    return KernelCode.of([emitter.writer], [Phase(name, emitter.tasks, is_at_most(work, SMALL_WORK))], note)


class _Emitter:
    """What both forms share: tasks are shares of the points of the axis at a point around, or all of them at several."""

    def __init__(self, name: str, kernel: Kernel, roles: Roles, lanewise: Lanewise, isa: str) -> None:
        self.writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=isa)
        self.frame = Frame(self.writer, kernel, lanewise.lanes, Dependencies())
        self.roles = roles
        self.plan = lanewise
        self.dtype = roles.reduce.value.dtype
        self.stores = [statement for statement in kernel.body if isinstance(statement, Store)]
        extent = lanewise.axis.extent
        most = self.most_points()
        self.share = even_share(extent, most, lanewise.lanes)
        self.together = max(1, most // self.share) if isinstance(extent, int) and extent <= self.share else 1
        self.has_rest = not isinstance(extent, int) or extent % lanewise.lanes != 0
        self.scope = Scope(self.frame)
        for size in (*(axis.extent for axis in kernel.axes), roles.k.extent, self.shares, self._units):
            self.scope.dim(size)

    def most_points(self) -> int:
        """Points of the axis in one task, about."""
        raise NotImplementedError

    def write(self, scope: Scope, low: Value, high: Value) -> None:
        """The points low <= point < high of the axis, at one point around."""
        raise NotImplementedError

    @property
    def shares(self) -> Dim:
        """Shares of the axis."""
        return ceildiv(self.plan.axis.extent, self.share)

    @property
    def _units(self) -> Dim:
        """Shares at all points around."""
        return product([axis.extent for axis in self.plan.around]) * self.shares

    @property
    def tasks(self) -> Dim:
        """How many."""
        return ceildiv(self._units, self.together)

    def emit(self) -> None:
        """The function."""
        w, scope = self.writer, self.scope
        shares, points = scope.dim(self.shares), scope.dim(self.plan.axis.extent)
        together = i64(self.together)
        end = w.minimum(w.mul(w.arg("end"), together), scope.dim(self._units))
        with w.loop(w.mul(w.arg("begin"), together), end) as unit:
            around = w.op("sdiv", unit.index, shares)
            low = w.mul(w.sub(unit.index, w.mul(around, shares)), i64(self.share))
            high = w.minimum(w.add(low, i64(self.share)), points)
            self.write(Scope(self.frame, scope, unravel(scope, around, self.plan.around)), low, high)
        w.ret()

    def at(self, scope: Scope, first: Value, end: Value | None) -> Scope:
        """The lanes from a point on, those before `end` where that is given."""
        name = self.plan.axis.name
        inside = Scope(self.frame, scope, {name: first}, name)
        inside.mask = inside.tail_mask(first, end) if end is not None else None
        return inside


class _Tiles(_Emitter):
    """Lanes are neighbours in memory: a register tile of rows and columns for each vector of points."""

    def most_points(self) -> int:
        r, lanes = self.roles, self.plan.lanes
        work = guess(r.m.extent) * guess(r.n.extent) * guess(r.depth)
        row = ROW_BYTES // self.dtype.itemsize
        return max(lanes, min(row, TILES_WORK // max(work, 1)) // lanes * lanes)

    def write(self, scope: Scope, low: Value, high: Value) -> None:
        """Tile by tile, the points of a share innermost: each operand's row is read along memory."""
        w, r, lanes = self.writer, self.roles, self.plan.lanes
        assert self.plan.tile is not None
        rows, columns = self.plan.tile
        middle = whole_end(w, low, high, lanes)
        with (
            w.loop(i64(0), scope.dim(r.m.extent), rows) as row,
            w.loop(i64(0), scope.dim(r.n.extent), columns) as column,
        ):
            with w.loop(low, middle, lanes) as point:
                self._tile(self.at(scope, point.index, None), row.index, column.index)
            if self.has_rest:
                with w.loop(middle, high, lanes) as point:
                    self._tile(self.at(scope, point.index, high), row.index, column.index)

    def _tile(self, scope: Scope, row: Value, column: Value) -> None:
        w, r = self.writer, self.roles
        assert self.plan.tile is not None
        rows, columns = (
            self._places(axis, first, count)
            for axis, first, count in zip((r.m, r.n), (row, column), self.plan.tile, strict=True)
        )
        zeros = [constant(0, self.dtype.llvm, self.plan.lanes)] * (len(rows) * len(columns))
        depth = scope.dim(r.k.extent)
        if isinstance(r.k.extent, int) and r.k.extent <= CHAIN:
            sums = self._sums(scope, rows, columns, i64(0), depth, zeros)
        else:
            with w.loop(i64(0), depth, CHAIN, zeros) as chain:
                end = w.minimum(w.add(chain.index, i64(CHAIN)), depth)
                found = self._sums(scope, rows, columns, chain.index, end, zeros)
                add = "fadd" if self.dtype.is_float else "add"
                chain.next = [w.op(add, x, y) for x, y in zip(chain.carried, found, strict=True)]
            sums = chain.results
        results = iter(sums)
        for i, there in rows:
            for j, here in columns:
                inside = Scope(self.frame, scope, {r.m.name: i, r.n.name: j})
                inside.define(ir.reduced(r.reduce.name, self.dtype), next(results))
                with w.when(w.both(there, here)):
                    for store in self.stores:
                        Scope(self.frame, inside).store(store.buffer, store.indices, store.value)

    def _places(self, axis: Axis, first: Value, count: int) -> list[tuple[Value, Value]]:
        """Rows or columns of a tile, and whether they are in the matrix: those beyond repeat its last one and are not stored."""
        w, extent = self.writer, axis.extent
        size, numbers = self.scope.dim(extent), [w.add(first, i64(i)) for i in range(count)]
        if isinstance(extent, int) and extent % count == 0:
            return [(number, TRUE) for number in numbers]
        return [(w.minimum(number, w.sub(size, i64(1))), w.cmp("icmp slt", number, size)) for number in numbers]

    def _sums(
        self, scope: Scope, rows: Sequence[tuple[Value, Value]], columns: Sequence[tuple[Value, Value]],
        begin: Value, end: Value, start: Sequence[Value],
    ) -> list[Value]:  # fmt: skip
        w, r = self.writer, self.roles
        with w.loop(begin, end, 1, start) as loop:
            at = Scope(self.frame, scope, {r.k.name: loop.index})
            left = [Scope(self.frame, at, {r.m.name: i}).vector(r.lhs) for i, _ in rows]
            right = [Scope(self.frame, at, {r.n.name: j}).vector(r.rhs) for j, _ in columns]
            pairs = itertools.product(left, right)
            loop.next = [accumulate(w, self.dtype, x, y, one) for (x, y), one in zip(pairs, loop.carried, strict=True)]
        return loop.results


class _WrittenOut(_Emitter):
    """All products of a point are written out."""

    def __init__(self, name: str, kernel: Kernel, roles: Roles, lanewise: Lanewise, isa: str) -> None:
        found = find_blocks(kernel, lanewise.axis, (*lanewise.inner, *roles.reduce.axes), roles)
        assert found is not None
        self.blocks: dict[Scalar | Store, Block] = found
        super().__init__(name, kernel, roles, lanewise, isa)
        self.results = self._points(lanewise.inner)
        self.products = self._points(roles.reduce.axes)
        # Where places at the end of a block are not used, the last ones in memory may not exist.
        self.gaps = any(block.places < block.count for block in found.values())

    @staticmethod
    def _points(axes: Sequence[Axis]) -> list[dict[str, int]]:
        counts = [range(axis.extent) for axis in axes if isinstance(axis.extent, int)]
        return [dict(zip((axis.name for axis in axes), place, strict=True)) for place in itertools.product(*counts)]

    def most_points(self) -> int:
        inner = product([axis.extent for axis in (*self.plan.inner, *self.roles.reduce.axes)])
        assert isinstance(inner, int)
        size = sum(block.count for block in set(self.blocks.values())) * self.dtype.itemsize
        return max(self.plan.lanes, min(TASK_WORK // inner, TASK_BYTES // size))

    def write(self, scope: Scope, low: Value, high: Value) -> None:
        """Vectors of points, then what is left over, masked."""
        w, lanes = self.writer, self.plan.lanes
        kept = self._kept(scope)
        last = w.sub(high, i64(1)) if self.gaps else high
        middle = whole_end(w, low, last, lanes)
        with w.loop(low, middle, lanes) as group:
            self._group(self.at(scope, group.index, None), kept, group.index, None)
        if self.gaps or self.has_rest:
            with w.loop(middle, high, lanes) as group:
                self._group(self.at(scope, group.index, high), kept, group.index, high)

    def _kept(self, scope: Scope) -> dict[tuple[Scalar, tuple[int, ...]], Value]:
        """Operands that are the same for all lanes, computed once for all: few of them, or those that are more than a load."""
        r, depends = self.roles, self.frame.dependencies
        found: dict[tuple[Scalar, tuple[int, ...]], Value] = {}
        for operand in (r.lhs, r.rhs):
            if self.plan.axis.name in depends.of(operand):
                continue
            keys = {self._key(operand, {**at, **k}): {**at, **k} for at in self.results for k in self.products}
            if len(keys) <= KEPT or operand.op != "load":
                for key, point in keys.items():
                    value = Scope(self.frame, scope, _values(point)).get(operand)
                    found[key] = self.writer.splat(value, self.plan.lanes)
        return found

    def _key(self, operand: Scalar, point: Point) -> tuple[Scalar, tuple[int, ...]]:
        used = self.frame.dependencies.of(operand)
        return operand, tuple(value for name, value in point.items() if name in used)

    def _group(
        self, scope: Scope, kept: Mapping[tuple[Scalar, tuple[int, ...]], Value], first: Value, end: Value | None
    ) -> None:
        w, r = self.writer, self.roles
        left = None if end is None else w.minimum(w.sub(end, first), i64(self.plan.lanes))
        places = {
            block: separate(w, self._load(scope, block, left))
            for block in dict.fromkeys(block for access, block in self.blocks.items() if not isinstance(access, Store))
        }
        known = dict(kept)

        def operand(node: Scalar, point: Point) -> Value:
            key = self._key(node, point)
            if key not in known:
                known[key] = self._inside(scope, places, point).vector(node)
            return known[key]

        results: dict[Store, list[tuple[int, Value]]] = {store: [] for store in self.stores}
        for at in range(0, len(self.results), SUMS):
            some = self.results[at : at + SUMS]
            sums = [constant(0, self.dtype.llvm, self.plan.lanes)] * len(some)
            for k in self.products:
                for i, point in enumerate(some):
                    both = {**point, **k}
                    sums[i] = accumulate(w, self.dtype, operand(r.lhs, both), operand(r.rhs, both), sums[i])
            for point, total in zip(some, sums, strict=True):
                inside = self._inside(scope, places, point)
                inside.define(ir.reduced(r.reduce.name, self.dtype), total)
                for store in self.stores:
                    results[store].append((self._place(store, point), inside.vector(store.value)))
        for store, found in results.items():
            self._store(scope, store, found, left)

    def _inside(self, scope: Scope, places: Mapping[Block, Sequence[Value]], point: Point) -> Scope:
        """One point of the written-out axes, what is separated already known."""
        inside = Scope(self.frame, scope, _values(point))
        for access, block in self.blocks.items():
            if not isinstance(access, Store) and self._inner_axes(access) <= point.keys():
                inside.define(access, places[block][self._place(access, point)])
        return inside

    def _inner_axes(self, access: Scalar) -> set[str]:
        axes = (*self.plan.inner, *self.roles.reduce.axes)
        return {axis.name for axis in axes} & self.frame.dependencies.of(access)

    def _place(self, access: Scalar | Store, point: Point) -> int:
        """Which place of its block an access stands at."""
        if access not in self.blocks:
            return 0
        name, indices = (access.buffer, access.indices) if isinstance(access, Store) else load_parts(access)
        known = address(self.frame.buffers[name], indices).known
        block = self.blocks[access]
        total = block.places - 1 - sum(
            step(known, axis.name) * (axis.extent - 1) for axis in (*self.plan.inner, *self.roles.reduce.axes)  # type: ignore[operator, misc, arg-type]
        )  # fmt: skip
        return total + sum(step(known, one) * value for one, value in point.items())  # type: ignore[operator, misc, arg-type]

    # --- memory --------------------------------------------------------------------------------------------------

    def _pointer(self, scope: Scope, block: Block, number: int) -> Value:
        """Where a vector of a block's elements lies."""
        w, element = self.writer, self._element(block)
        start = scope.dim(symbol(self.plan.axis.name) * block.count + block.start)
        begin = w.gep(self.frame.parameters.buffers[block.buffer], element, start)
        return w.gep(begin, element, i64(number * self.plan.lanes))

    def _element(self, block: Block) -> str:
        return self.frame.buffers[block.buffer].dtype.llvm

    def _mask(self, scope: Scope, block: Block, number: int, left: Value) -> Value:
        """Which elements of that vector belong to the points that are left."""
        w = self.writer
        end = w.sub(w.mul(left, i64(block.count)), i64(block.count - block.places))
        return scope.tail_mask(i64(number * self.plan.lanes), end)

    def _load(self, scope: Scope, block: Block, left: Value | None) -> list[Value]:
        w = self.writer
        type_ = vector(self._element(block), self.plan.lanes)
        found = []
        for number in range(block.count):
            pointer = self._pointer(scope, block, number)
            if left is None:
                found.append(w.load(pointer, type_, self.dtype.itemsize))
                continue
            mask = self._mask(scope, block, number, left)
            found.append(w.masked_load(pointer, type_, self.dtype.itemsize, mask))
        return found

    def _store(self, scope: Scope, store: Store, found: Sequence[tuple[int, Value]], left: Value | None) -> None:
        w, block = self.writer, self.blocks.get(store)
        if block is None:  # neighbours
            for point, (_, value) in zip(self.results, found, strict=True):
                Scope(self.frame, scope, _values(point)).put(store.buffer, store.indices, value)
            return
        places = [value for _, value in sorted(found, key=lambda one: one[0])]
        for number, value in enumerate(join(w, places)):
            pointer = self._pointer(scope, block, number)
            if left is None:
                w.store(value, pointer, self.dtype.itemsize)
                continue
            w.masked_store(value, pointer, self.dtype.itemsize, self._mask(scope, block, number, left))


def _values(point: Point) -> dict[str, Value]:
    return {name: i64(value) for name, value in point.items()}
