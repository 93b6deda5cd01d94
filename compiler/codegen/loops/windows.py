"""Kernels over small windows: tiles of a few points of one axis by a vector of another, the window written out.

What neighbouring points share is loaded once. Where a tile is inside all arrays its loads are plain; at edges they are masked, so
that nothing needs to be copied into an array with a margin.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen import combine
from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.combine import State
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.loops.plan import GRAIN, even_share
from pierian.compiler.codegen.turns import whole_end
from pierian.compiler.codegen.writer import FALSE, TRUE, FunctionWriter, Value, constant, i64, lanes_of, vector
from pierian.compiler.dim import Dim, ceildiv, constant_part, floordiv, maximum, product, substitute
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Kernel, Reduce, Store
from pierian.compiler.kernel.scalar import Scalar, load_parts
from pierian.compiler.schedule.windows import Access, Bound, WindowPlan, accesses
from pierian.compiler.target.features import Target

Flags = dict[tuple[Bound, ...], Value]

# Combinations in one task, and elements in one that combines nothing.
WORK = 4 * GRAIN
MOVED = 2 * GRAIN


class WindowEmitter:
    """Writes the function `name`_f."""

    def __init__(self, kernel: Kernel, name: str, plan: WindowPlan, target: Target) -> None:
        self.kernel = kernel
        self.name = name
        self.plan = plan
        self.has_fma = target.has_fma
        self.writer = FunctionWriter(f"{name}_f", "void", PHASE_PARAMETERS, isa=target.isa)
        self.frame = Frame(self.writer, kernel, plan.lanes, Dependencies())
        self.stores = [statement for statement in kernel.body if isinstance(statement, Store)]
        roots = [statement.value for statement in plan.reduces or self.stores]
        taps = list(plan.points())
        self.values = [[plan.at(root, row, point) for root in roots for point in taps] for row in range(plan.rows)]
        flat = [value for row in self.values for value in row]
        self.accesses = {one.node: one for one in accesses(flat, kernel.buffers, plan.lane.name)}

    def emit(self) -> KernelCode:
        p, w = self.plan, self.writer
        row_work = p.lane.extent * len(self.values[0]) * (p.looped.extent if p.looped else 1)
        blocks = ceildiv(p.slide.extent, p.rows)
        most = WORK if p.reduces else MOVED
        per_task = floordiv(most, maximum(row_work * p.rows, 1)) + 1
        if isinstance(per_task, int):
            per_task = even_share(blocks, per_task)
        groups = floordiv(blocks + per_task - 1, per_task)
        tasks = product([axis.extent for axis in p.before]) * groups
        scope = Scope(self.frame)
        for size in (groups, per_task, p.slide.extent, p.lane.extent, *(axis.extent for axis in p.before)):
            scope.dim(size)
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            rest = w.op("sdiv", task.index, scope.dim(groups)) if groups != 1 else task.index
            group = w.sub(task.index, w.mul(rest, scope.dim(groups))) if groups != 1 else i64(0)
            inside = Scope(self.frame, scope, unravel(scope, rest, p.before))
            length = w.mul(scope.dim(per_task), i64(p.rows))
            low = w.mul(group, length)
            self._blocks(inside, low, w.minimum(w.add(low, length), scope.dim(p.slide.extent)))
        w.ret()
        work = row_work * product([axis.extent for axis in (*p.before, p.slide)])
        phase = Phase(f"{self.name}_f", tasks, isinstance(work, int) and work <= most)
        return KernelCode.of([w], [phase], self._note(tasks))

    def _note(self, tasks: Dim) -> str:
        p = self.plan
        axes = " x ".join(str(axis.extent) for axis in (*p.before, p.slide, p.lane))
        window = " x ".join(str(axis.extent) for axis in ((p.looped,) if p.looped else ()) + p.taps) or "one"
        looped = f", in a loop of {p.looped.extent}" if p.looped else ""
        edges = ", edges masked" if any(one.bounds for one in self.accesses.values()) else ""
        apart = max((one.stride for one in self.accesses.values()), default=1)
        lanes = f", lanes {apart} apart" if apart > 1 else ""
        return f"windows of {window}{looped} over {axes}, tile {p.rows} x {p.lanes}{lanes}{edges}, tasks {tasks}"

    # --- loops ---------------------------------------------------------------------------------------------------

    def _blocks(self, scope: Scope, low: Value, high: Value) -> None:
        """Points low to high of the slide axis, a tile's rows at a time and then one by one."""
        p, w = self.plan, self.writer
        filters = Scope(self.frame, scope, vector_axis=p.lane.name)
        found = [f"={p.combined(reduce, row).attribute}" for reduce in p.reduces for row in range(p.rows)]
        filters.hoist([value for row in self.values for value in row], [*self._inner(), *found])
        whole = high
        if not isinstance(p.slide.extent, int) or p.slide.extent % p.rows:
            whole = whole_end(w, low, high, p.rows)
        with w.loop(low, whole, p.rows) as block:
            self._line(filters, block.index, p.rows)
        if whole is not high:
            with w.loop(whole, high) as single:
                self._line(filters, single.index, 1)

    def _inner(self) -> list[str]:
        """The axes inside of a tile and around it whose values are not the same for all tiles."""
        p = self.plan
        return [p.slide.name, p.lane.name, *([p.looped.name] if p.looped else [])]

    def _line(self, scope: Scope, first: Value, rows: int) -> None:
        """A tile's rows over all lanes."""
        p, w = self.plan, self.writer
        line = Scope(self.frame, scope, {p.slide.name: first})
        read = self._read(rows)
        safe = self._inside(line, [bound for one in read for bound in one.bounds if bound != one.lane_bound])
        flags = self._flags(line, read)
        extent = line.dim(p.lane.extent)
        with w.loop(i64(0), extent, p.lanes) as column:
            inside = Scope(self.frame, line, {p.lane.name: column.index}, p.lane.name)
            plain = self._is_plain(inside, read, safe, extent) if rows == p.rows else FALSE
            self._choose(scope, inside, rows, plain, flags, extent)

    def _flags(self, line: Scope, read: Sequence[Access]) -> Flags:
        """For all bounds whether they hold as far as that is the same in all lanes; where a loop walks the window, masks in memory
        for each of its turns."""
        w, looped = self.writer, self.plan.looped
        bounded = {one.bounds: one for one in read if one.bounds}
        if looped is None or not bounded:
            return {bounds: self._flag(line, one) for bounds, one in bounded.items()}
        assert isinstance(looped.extent, int)
        type_ = self._stored_mask()
        tables = {bounds: w.alloca(type_, looped.extent) for bounds in bounded}
        with w.loop(i64(0), i64(looped.extent)) as turn:
            inside = Scope(self.frame, line, {looped.name: turn.index})
            for bounds, one in bounded.items():
                mask = w.cast("bitcast", self._flag(inside, one), f"i{self.plan.lanes}")
                place = w.gep(tables[bounds], type_, turn.index)
                w.store(w.cast("zext", mask, type_), place, 1)
        return tables

    def _stored_mask(self) -> str:
        """The type of a mask in memory."""
        return f"i{max(8, self.plan.lanes)}"

    def turn_flags(self, tables: Flags, turn: Value) -> Flags:
        """The masks of one turn of the loop over a window's lines."""
        w, lanes, type_ = self.writer, self.plan.lanes, self._stored_mask()
        found = {}
        for bounds, table in tables.items():
            stored = w.load(w.gep(table, type_, turn), type_, 1)
            found[bounds] = w.cast("bitcast", w.cast("trunc", stored, f"i{lanes}"), vector("i1", lanes))
        return found

    def _flag(self, scope: Scope, access: Access) -> Value:
        """In all lanes, whether the bounds hold that are the same for all of them."""
        w, lanes = self.writer, self.plan.lanes
        result = TRUE
        for place, extent in access.bounds:
            if (place, extent) != access.lane_bound:  # negative places are large numbers without a sign
                inside = w.cmp("icmp ult", scope.dim(place), scope.dim(extent))
                result = inside if result is TRUE else w.op("and", result, inside)
        if result is TRUE:
            return constant(True, "i1", lanes)
        return w.cast("bitcast", w.cast("sext", result, f"i{lanes}"), vector("i1", lanes))

    def _is_plain(self, scope: Scope, read: list[Access], safe: Value, extent: Value) -> Value:
        """Whether the tile at a point is inside of everything."""
        p, w = self.plan, self.writer
        bounds = []
        for one in read:
            if one.lane_bound is not None:
                place, size = one.lane_bound
                reach = p.lanes * one.stride - 1
                bounds += [(place - one.phase, size), (place - one.phase + reach, size)]
        conditions = [safe, self._inside(scope, bounds)]
        if not isinstance(p.lane.extent, int) or p.lane.extent % p.lanes:
            end = w.add(scope.values[p.lane.name], i64(p.lanes))
            conditions.append(w.cmp("icmp sle", end, extent))
        conditions = [condition for condition in conditions if condition.text != "true"]
        result = conditions[0] if conditions else TRUE
        for condition in conditions[1:]:
            result = w.op("and", result, condition)
        return result

    def _choose(self, around: Scope, scope: Scope, rows: int, plain: Value, flags: Flags, extent: Value) -> None:
        """The tile at a point: with plain loads and stores where that is known to be right, or found so in the run."""
        p, w = self.plan, self.writer
        if plain.text == "true":
            _Tile(self, around, scope, rows, None).emit()
            return
        yes, no, done = w.label("plain"), w.label("edge"), w.label("stored")
        if plain.text != "false":
            w.cond_br(plain, yes, no)
            w.start(yes)
            _Tile(self, around, Scope(self.frame, scope), rows, None).emit()
            w.br(done)
            w.start(no)
        edge = Scope(self.frame, scope)
        if not isinstance(p.lane.extent, int) or p.lane.extent % p.lanes:
            edge.mask = edge.tail_mask(scope.values[p.lane.name], extent)
        _Tile(self, around, edge, rows, flags).emit()
        if plain.text != "false":
            w.br(done)
            w.start(done)

    def _read(self, rows: int) -> list[Access]:
        """What the first rows of a tile read."""
        if rows == self.plan.rows:
            return list(self.accesses.values())
        values = [value for row in self.values[:rows] for value in row]
        return accesses(values, self.kernel.buffers, self.plan.lane.name)

    def _inside(self, scope: Scope, bounds: Sequence[Bound]) -> Value:
        """Whether all places are inside, in all turns of a loop over the window: of places that differ by a number, the lowest and
        the highest are looked at."""
        w, looped = self.writer, self.plan.looped
        if looped is not None:
            ends: list[dict[str, Dim]] = [{looped.name: 0}, {looped.name: looped.extent - 1}]
            bounds = [(substitute(place, end), extent) for place, extent in bounds for end in ends]
        found: list[tuple[Dim, Dim, int, int]] = []
        for place, extent in bounds:
            for number, (base, size, low, high) in enumerate(found):
                away = place - base
                if size == extent and isinstance(away, int):
                    found[number] = (base, size, min(low, away), max(high, away))
                    break
            else:
                found.append((place, extent, 0, 0))
        result = TRUE
        for base, extent, low, high in found:
            lowest = w.cmp("icmp sge", scope.dim(base + low), i64(0))
            highest = w.cmp("icmp slt", scope.dim(base + high), scope.dim(extent))
            both = w.op("and", lowest, highest)
            result = both if result is TRUE else w.op("and", result, both)
        return result


class _Tile:
    """A few points of the slide axis by a vector of lanes.

    Args:
        around: the scope outside the loops over both axes.
        scope: where the tile's first point stands.
        flags: by bounds, whether elements are inside as far as that is the same for all lanes; None where all elements are inside.
    """

    def __init__(self, emitter: WindowEmitter, around: Scope, scope: Scope, rows: int, flags: Flags | None) -> None:
        self.emitter = emitter
        self.writer = emitter.writer
        self.plan = emitter.plan
        self.around = around
        self.scope = scope
        self.rows = rows
        self.flags = flags
        self.ready: set[Scalar] = set()
        self.pointers: dict[tuple[str, Dim], Value] = {}
        self.vectors: dict[tuple[object, ...], Value] = {}
        self.masks: dict[Bound, Value] = {}

    def emit(self) -> None:
        """The window point by point, each for all rows; then the results."""
        p, w = self.plan, self.writer
        first, column = self.scope.values[p.slide.name], self.scope.values[p.lane.name]
        results = [self._combined(number) for number in range(len(p.reduces))]
        for row in range(self.rows):
            at = {p.slide.name: w.add(first, i64(row)), p.lane.name: column}
            place = Scope(self.around.frame, self.around, at, p.lane.name, self.scope.mask)
            for reduce, values in zip(p.reduces, results, strict=True):
                place.define(ir.reduced(reduce.name, reduce.value.dtype), values[row])
            if not p.reduces:
                for access in accesses(
                    [store.value for store in self.emitter.stores], self.emitter.kernel.buffers, p.lane.name
                ):
                    place.define(access.node, self._load(self.emitter.accesses[p.at(access.node, row)]))
            for store in self.emitter.stores:
                place.store(store.buffer, store.indices, store.value)

    def _combined(self, number: int) -> list[Value]:
        """For each row, a combination of all points of the window; those that follow may use it."""
        reduce = self.plan.reduces[number]
        states = [combine.identity(reduce.combiner, reduce.value.dtype, self.plan.lanes) for _ in range(self.rows)]
        if self.plan.looped is None:
            states = self._line_combined(number, states)
        else:
            w, axis = self.writer, self.plan.looped
            with w.loop(i64(0), self.scope.dim(axis.extent), 1, [part for state in states for part in state]) as turn:
                flags = None if self.flags is None else self.emitter.turn_flags(self.flags, turn.index)
                scope = Scope(self.scope.frame, self.scope, {axis.name: turn.index})
                line = _Tile(self.emitter, self.around, scope, self.rows, flags)
                given = iter(turn.carried)
                states = line._line_combined(number, [[next(given) for _ in state] for state in states])
                turn.next = [part for state in states for part in state]
            given = iter(turn.results)
            states = [[next(given) for _ in state] for state in states]
        results = [combine.result(reduce.combiner, state) for state in states]
        for row, value in enumerate(results):
            self.scope.define(self.plan.combined(reduce, row), value)
        return results

    def _line_combined(self, number: int, states: list[State]) -> list[State]:
        """The states of all rows after the points that are written out."""
        reduce = self.plan.reduces[number]
        taps = len(self.emitter.values[0]) // len(self.plan.reduces)
        for tap in range(number * taps, (number + 1) * taps):
            for row in range(self.rows):
                states[row] = self._advance(reduce, states[row], self.emitter.values[row][tap])
        return states

    def _advance(self, reduce: Reduce, state: State, value: Scalar) -> State:
        for node in ir.postorder([value]):
            access = self.emitter.accesses.get(node)
            if access is not None and node not in self.ready:
                self.ready.add(node)
                self.scope.define(node, self._load(access))
        if reduce.combiner == "sum" and value.op == "mul" and value.dtype.is_float and self.emitter.has_fma:
            x, y = (self.scope.vector(arg) for arg in value.args)
            return [self.writer.intrinsic("llvm.fma", x, y, state[0])]
        return combine.advance(self.writer, reduce.combiner, value.dtype, state, [self.scope.vector(value)])

    # --- loads ---------------------------------------------------------------------------------------------------

    def _load(self, access: Access) -> Value:
        """An access in all lanes: one vector, or as many as lanes are apart with every so-manyth element picked."""
        name, indices = load_parts(access.load)
        where = address(self.scope.frame.buffers[name], indices).known - access.phase
        parts = [self._vector(access, name, where + self.plan.lanes * part) for part in range(access.stride)]
        if access.stride == 1:
            return parts[0]
        return pick(self.writer, parts, access.phase)

    def _vector(self, access: Access, name: str, where: Dim) -> Value:
        """Neighbouring elements from a position on, at the access's bounds."""
        # What lies beyond the end of one row may be the beginning of the next.
        key = (name, where, access.bounds, access.fill, self._lane_place(access, where))
        if key not in self.vectors:
            self.vectors[key] = self._read(access, name, where)
        return self.vectors[key]

    def _read(self, access: Access, name: str, where: Dim) -> Value:
        w = self.writer
        dtype = access.load.dtype
        type_ = vector(dtype.llvm, self.plan.lanes)
        fixed = constant_part(where)
        base = self.pointers.get((name, where - fixed))
        if base is None:
            array = self.scope.frame.parameters.buffers[name]
            base = w.gep(array, dtype.llvm, self.scope.dim(where - fixed))
            self.pointers[name, where - fixed] = base
        pointer = w.gep(base, dtype.llvm, i64(fixed)) if fixed else base
        mask = self._mask(access, where)
        if mask is None:
            return w.load(pointer, type_, dtype.itemsize)
        fill = constant(0, dtype.llvm, self.plan.lanes) if access.fill is None else self.scope.vector(access.fill)
        return w.masked_load(pointer, type_, dtype.itemsize, mask, fill)

    def _mask(self, access: Access, where: Dim) -> Value | None:
        """Which elements from a position on may be read; None for all."""
        if self.flags is None:
            return None
        mask = self.scope.mask
        place = self._lane_place(access, where)
        if access.lane_bound is not None and place is not None:
            mask = self._lanes_inside(place, access.lane_bound[1])
        flag = self.flags.get(access.bounds)
        if flag is None or mask is None:
            return flag or mask
        return self.writer.op("and", mask, flag)

    def _lane_place(self, access: Access, where: Dim) -> Dim | None:
        """Where along the axis that is bounded from lane to lane a position is."""
        if access.lane_bound is None:
            return None
        name, indices = load_parts(access.load)
        return access.lane_bound[0] + where - address(self.scope.frame.buffers[name], indices).known

    def _lanes_inside(self, place: Dim, extent: Dim) -> Value:
        """Lanes at `place`, `place + 1`, ... that are inside."""
        found = self.masks.get((place, extent))
        if found is None:
            w, lanes = self.writer, self.plan.lanes
            at = self.scope.dim(place)
            iota = w.iota("i32", lanes)
            first, end = w.sub(i64(0), at), w.sub(self.scope.dim(extent), at)
            limits = [w.minimum(w.intrinsic("llvm.smax", one, i64(0)), i64(lanes)) for one in (first, end)]
            low, high = (w.splat(w.cast("trunc", one, "i32"), lanes) for one in limits)
            found = w.op("and", w.cmp("icmp sge", iota, low), w.cmp("icmp slt", iota, high))
            self.masks[place, extent] = found
        return found


def pick(writer: FunctionWriter, parts: Sequence[Value], first: int) -> Value:
    """Of vectors that follow each other, every element whose number is `first` more than a multiple of how many there are."""
    step, lanes = len(parts), lanes_of(parts[0].type)
    result = parts[0]
    for number in range(1, step):
        # Elements picked so far stand in their final lanes; before the first turn they still stand in the first vector.
        order = []
        for lane in range(lanes):
            part, at = divmod(first + lane * step, lanes)
            chosen = lanes + at if part == number else at if part == 0 and number == 1 else lane
            order.append(chosen)
        result = writer.shuffle(order, result, parts[number])
    return result
