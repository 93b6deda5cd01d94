"""Expressions to instructions inside loops.

A `Scope` is one level of a loop nest: the axes that have a value there, and what has been computed at that level.
What does not depend on an inner loop is computed in the scope around it. At most one axis is the vector axis: its
value in the scope is the index of lane 0, and what depends on it is a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pierian.compiler.codegen.abi import Parameters, emit_dim
from pierian.compiler.codegen.functions import call_function, call_rarely
from pierian.compiler.codegen.scalars import (
    emit_scalar,
    memory_load,
    register_type,
    splat_constant,
    to_memory,
    to_register,
)
from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, element_of, i64, lanes_of, mangle, vector
from pierian.compiler.dim import Atom, Dim, Symbolic, constant_part, product, symbol, symbols, symbols_of_atom
from pierian.compiler.dtype import DType
from pierian.compiler.elementary import EXPANSIONS
from pierian.compiler.frozen import replace
from pierian.compiler.kernel.access import Address, Clamp, address, clamp_of, step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel
from pierian.compiler.kernel.scalar import Index, Scalar, children, load_parts

# Distances of lanes whose elements are picked from whole vectors; farther ones are gathered.
_PICKED = ("2", "3", "4")


class Frame:
    """What all scopes of one function share."""

    def __init__(self, writer: FunctionWriter, kernel: Kernel, lanes: int, dependencies: Dependencies) -> None:
        self.writer = writer
        self.kernel = kernel
        self.lanes = lanes
        self.buffers: dict[str, Buffer] = {buffer.name: buffer for buffer in kernel.buffers}
        self.parameters = Parameters(writer, kernel)
        self.dependencies = dependencies
        # Buffers whose whole vectors are stored past the caches, at multiples of a vector's bytes.
        self.streamed: frozenset[str] = frozenset()

    def add_scratch(self, buffer: Buffer) -> None:
        """A buffer of known size that lives as long as the function runs."""
        size = product(list(buffer.shape))
        assert isinstance(size, int)
        self.buffers[buffer.name] = buffer
        self.parameters.buffers[buffer.name] = self.writer.alloca(buffer.dtype.llvm, size)


def unravel(scope: Scope, index: Value, axes: Sequence[Axis]) -> dict[str, Value]:
    """The values of several axes at the point `index` of their product, slowest first; extents are looked up in `scope`, which
    should know them already where this is written inside a loop."""
    values: dict[str, Value] = {}
    rest = index
    for axis in reversed(axes[1:]):
        extent = scope.dim(axis.extent)
        values[axis.name] = scope.writer.op("srem", rest, extent)
        rest = scope.writer.op("sdiv", rest, extent)
    return {**values, axes[0].name: rest} if axes else {}


def first_point(scope: Scope, index: Value, axes: Sequence[Axis]) -> dict[str, Value]:
    """As `unravel`, in front of a loop that may have no turn: axes may be empty."""
    writer = scope.writer
    values: dict[str, Value] = {}
    rest = index
    for axis in reversed(axes[1:]):
        extent = scope.dim(axis.extent)
        if index.text == "0":
            values[axis.name] = index
            continue
        some = (
            writer.intrinsic("llvm.smax", extent, i64(1))
            if not isinstance(axis.extent, int)
            else i64(max(axis.extent, 1))
        )
        values[axis.name] = writer.op("srem", rest, some)
        rest = writer.op("sdiv", rest, some)
    values[axes[0].name] = rest
    return {axis.name: values[axis.name] for axis in axes}


def next_point(scope: Scope, values: dict[str, Value], axes: Sequence[Axis]) -> dict[str, Value]:
    """The values of the axes one point further, without a division: the fastest one moves, and at its end the one before it."""
    writer = scope.writer
    following = dict(values)
    following[axes[-1].name] = writer.add(values[axes[-1].name], i64(1))
    for slow, fast in zip(reversed(axes[:-1]), reversed(axes[1:]), strict=True):
        at_end = writer.cmp("icmp eq", following[fast.name], scope.dim(fast.extent))
        following[fast.name] = writer.select(at_end, i64(0), following[fast.name])
        following[slow.name] = writer.add(values[slow.name], writer.cast("zext", at_end, "i64"))
    return following


class Scope:
    """One level of a loop nest.

    Args:
        frame: the function.
        parent: the level around it.
        axes: values of the axes that this level adds.
        vector_axis: the axis along which lanes lie, here and in inner scopes.
        mask: which lanes are inside the iteration space; None for all.
        aligned: whether lane 0 stands at a multiple of the lanes.
    """

    def __init__(
        self,
        frame: Frame,
        parent: Scope | None = None,
        axes: dict[str, Value] | None = None,
        vector_axis: str | None = None,
        mask: Value | None = None,
        aligned: bool = False,
    ) -> None:
        self.frame = frame
        self.writer = frame.writer
        self.parent = parent
        self.values: dict[str, Value] = dict(parent.values) if parent else dict(frame.parameters.dims)
        self.values.update(axes or {})
        self.vector_axes: frozenset[str] = parent.vector_axes if parent else frozenset()
        if vector_axis is not None:
            self.vector_axes |= {vector_axis}
        self.mask: Value | None = mask if mask is not None else (parent.mask if parent else None)
        self.aligned: bool = aligned or (parent.aligned if parent else False)
        self.stored: int | None = None  # where a known number of first lanes is stored in place of those of the mask
        self._memo: dict[Scalar, Value] = {}
        self._splats: dict[Scalar, Value] = {}
        self._dims: dict[Dim, tuple[Value, int]] = {}  # and in which of the writer's regions they were computed

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, root: Scalar) -> Value:
        """The value of an expression; a scalar where it does not vary over lanes."""
        found = self._lookup(root)
        if found is not None:
            return found
        stack = [root]
        while stack:
            node = stack[-1]
            if self._lookup(node) is not None:
                stack.pop()
                continue
            missing = [child for child in children(node) if self._lookup(child) is None]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            self._memo[node] = self._emit(node)
        found = self._lookup(root)
        assert found is not None
        return found

    def vector(self, node: Scalar) -> Value:
        """The value of an expression in all lanes."""
        lanes = self.frame.lanes
        if node.op == "const":
            return splat_constant(node, lanes)
        scope: Scope | None = self
        while scope is not None:
            if node in scope._splats:
                return scope._splats[node]
            scope = scope.parent
        value = self.get(node)
        if lanes == 1 or value.type.startswith("<"):
            return value
        result = self._splats[node] = self.writer.splat(value, lanes)
        return result

    def define(self, node: Scalar, value: Value) -> None:
        """Say what a `reduced` expression is from here on."""
        self._memo[node] = value

    def share(self, other: Scope) -> None:
        """Know what has been computed in a scope that stands at the same place of the loops, for another point around them."""
        self._memo.update(other._memo)
        self._splats.update(other._splats)

    def dim(self, expression: Dim) -> Value:
        """A size or the lane-0 value of an index."""
        if isinstance(expression, int):
            return i64(expression)
        names = symbols(expression)
        scope: Scope = self
        while (found := scope._known_dim(expression)) is None:
            parent = scope.parent
            if parent is None or any(parent.values.get(name) is not scope.values[name] for name in names):
                break
            scope = parent
        if found is None:
            found = emit_dim(self.writer, expression, self.values)
            self._dims[expression] = found, self.writer.region
        return found

    def _known_dim(self, expression: Dim) -> Value | None:
        """A size that was computed for this scope, and not in a branch that has ended."""
        found = self._dims.get(expression)
        return found[0] if found is not None and self.writer.is_open(found[1]) else None

    def hoist(self, roots: Iterable[Scalar], inner: Iterable[str]) -> None:
        """Compute here, before a loop over `inner` axes, all of `roots` that the loop does not change."""
        changing = frozenset(inner)
        depends = self.frame.dependencies.of
        seen: set[Scalar] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node in seen or node.op == "const":
                continue
            seen.add(node)
            needed = depends(node)
            if needed & changing:
                stack.extend(children(node))
            elif all(name.startswith("=") or name in self.values for name in needed):
                self.vector(node) if self.vector_axes else self.get(node)

    def _lookup(self, node: Scalar) -> Value | None:
        if node.op == "const":
            return splat_constant(node, 1)
        scope: Scope | None = self
        while scope is not None:
            found = scope._memo.get(node)
            if found is not None:
                return found
            scope = scope.parent
        return None

    def knows(self, node: Scalar) -> bool:
        """Whether an expression has been computed."""
        return self._lookup(node) is not None

    def varies(self, node: Scalar) -> bool:
        """True where the expression differs from lane to lane."""
        return self.frame.lanes > 1 and bool(self.frame.dependencies.of(node) & self.vector_axes)

    def _emit(self, node: Scalar) -> Value:
        if node.op == "load":
            return self._load(node)
        if node.op == "dim":
            assert isinstance(node.attribute, Symbolic)
            return self._index(node.attribute)
        args = self.operands(node)
        if node.op in EXPANSIONS:
            return call_function(self.writer, node, args)
        if node.op == "rare":
            return call_rarely(self.writer, node, args)
        return emit_scalar(self.writer, node, args)

    def operands(self, node: Scalar) -> list[Value]:
        """The arguments of an operation: vectors where one of them is."""
        args = [self.get(arg) for arg in node.args]
        if any(arg.type.startswith("<") for arg in args):
            args = [self.vector(arg) for arg in node.args]
        return args

    # --- memory ----------------------------------------------------------------------------------------------

    def _index(self, expression: Dim) -> Value:
        """An index as a value: a vector where it varies over lanes."""
        lanes = self.frame.lanes
        used = symbols(expression) & self.vector_axes
        if lanes == 1 or not used:
            return self.dim(expression)
        total = self.writer.splat(self.dim(expression), lanes) if self._is_linear(expression, used) else None
        if total is not None:
            iota = self.writer.iota("i64", lanes)
            stride = self._lane_step(expression, used)
            if stride.text != "1":
                iota = self.writer.op("mul", iota, self.writer.splat(stride, lanes))
            return self.writer.op("add", total, iota)
        return self._lane_numbers(expression)

    def _lane_numbers(self, expression: Dim) -> Value:
        """An index that is not linear in the lane: its quotients and remainders are computed in all lanes."""
        writer, lanes = self.writer, self.frame.lanes
        if not symbols(expression) & self.vector_axes:
            return writer.splat(self.dim(expression), lanes)
        assert isinstance(expression, Symbolic)
        total = constant(constant_part(expression), "i64", lanes)
        for monomial, factor in expression.terms:
            if monomial:
                term = constant(factor, "i64", lanes)
                for atom in monomial:
                    term = writer.op("mul", term, self._lane_atom(atom))
                total = writer.op("add", total, term)
        return total

    def _lane_atom(self, atom: Atom) -> Value:
        writer, lanes = self.writer, self.frame.lanes
        if atom.kind == "symbol":
            value = writer.splat(self.values[atom.name], lanes)
            return writer.op("add", value, writer.iota("i64", lanes)) if atom.name in self.vector_axes else value
        x, y = (self._lane_numbers(arg) for arg in atom.args)
        if atom.kind == "max":
            return writer.intrinsic("llvm.smax", x, y)
        # Numerators and denominators of sizes and indices are never negative.
        return writer.op("udiv" if atom.kind == "div" else "urem", x, y)

    def _is_linear(self, expression: Dim, axes: Iterable[str]) -> bool:
        return all(step(expression, axis) is not None for axis in axes)

    def _lane_step(self, expression: Dim, axes: Iterable[str]) -> Value:
        total: Dim = 0
        for axis in axes:
            factor = step(expression, axis)
            assert factor is not None
            total = factor + total
        return self.dim(total)

    def _load(self, node: Scalar) -> Value:
        name, indices = load_parts(node)
        buffer = self.frame.buffers[name]
        base = self.frame.parameters.buffers[name]
        where = address(buffer, indices)
        lanes = self.frame.lanes
        if not self._varies_over_lanes(where):
            pointer = self.writer.gep(base, buffer.dtype.llvm, self._scalar_offset(where))
            if self.mask is not None and self._is_only_lane(where):
                return self._masked_load(pointer, buffer.dtype, self.mask, 1)
            return memory_load(self.writer, pointer, buffer.dtype, 1)
        stride = self._constant_step(where)
        if stride in ("1", "-1"):
            pointer = self.writer.gep(base, buffer.dtype.llvm, self._scalar_offset(where))
            return self._load_consecutive(pointer, buffer.dtype, stride == "-1")
        if stride == "0":
            pointer = self.writer.gep(base, buffer.dtype.llvm, self._scalar_offset(where))
            return self.writer.splat(memory_load(self.writer, pointer, buffer.dtype, 1), lanes)
        repeats = self._repeats(where)
        if repeats:
            return self._load_repeated(base, buffer.dtype, where, repeats)
        if stride in _PICKED and self.mask is None:
            pointer = self.writer.gep(base, buffer.dtype.llvm, self._scalar_offset(where))
            return self._load_apart(pointer, buffer.dtype, int(stride))
        clamped = self._clamped(where)
        if clamped is not None:
            return self._load_clamped(base, buffer.dtype, where, *clamped)
        return self._gather(base, buffer.dtype, self._vector_offset(where))

    def _repeats(self, where: Address) -> int:
        """How many lanes each read the same element, where they are so many of neighbours each, counted from the first lane on."""
        if where.computed or not self.aligned or isinstance(where.known, int):
            return 0
        varying = [
            (m, factor) for m, factor in where.known.terms if any(symbols_of_atom(a) & self.vector_axes for a in m)
        ]
        if len(varying) != 1 or varying[0][1] != 1 or len(varying[0][0]) != 1:
            return 0
        (atom,) = varying[0][0]
        if atom.kind != "div" or not isinstance(atom.args[1], int):
            return 0
        moving = symbols(atom.args[0]) & self.vector_axes
        count = atom.args[1]
        in_step = len(moving) == 1 and atom.args[0] == symbol(next(iter(moving)))
        return count if in_step and self.frame.lanes % count == 0 and count < self.frame.lanes else 0

    def _load_repeated(self, base: Value, dtype: DType, where: Address, repeats: int) -> Value:
        """A part of a vector, each element for as many lanes."""
        writer, lanes = self.writer, self.frame.lanes
        part = lanes // repeats
        pointer = writer.gep(base, dtype.llvm, self._scalar_offset(where))
        if self.mask is None:
            loaded = memory_load(writer, pointer, dtype, part)
        else:
            mask = writer.shuffle([lane * repeats for lane in range(part)], self.mask)
            loaded = self._masked_load(pointer, dtype, mask, part)
        return writer.shuffle([lane // repeats for lane in range(lanes)], loaded)

    def prefetch(self, load: Scalar) -> None:
        """Ask for the memory of a load; nothing where its position is computed."""
        self.prefetch_at(*load_parts(load))

    def prefetch_at(self, name: str, indices: Sequence[Index], for_writing: bool = False) -> None:
        """Ask for the memory of an element of a buffer; nothing where its position is computed."""
        buffer = self.frame.buffers[name]
        where = address(buffer, indices)
        if not where.computed:
            base = self.frame.parameters.buffers[name]
            self.writer.prefetch(self.writer.gep(base, buffer.dtype.llvm, self.dim(where.known)), for_writing)

    def _clamped(self, where: Address) -> tuple[Dim, Clamp] | None:
        """The index of an access whose lanes are neighbours but for the ends of an axis: what it is without those, and them."""
        varying = [one for one in where.computed if self.varies(one[0])]
        if len(varying) != 1 or varying[0][1] != 1 or symbols(where.known) & self.vector_axes:
            return None
        clamp = clamp_of(varying[0][0])
        if clamp is None or self.varies(clamp.low) or self.varies(clamp.high):
            return None
        moving = symbols(clamp.index) & self.vector_axes
        if not self._is_linear(clamp.index, moving) or self._lane_step(clamp.index, moving).text != "1":
            return None
        rest = tuple(one for one in where.computed if one is not varying[0])
        return clamp.index, replace(clamp, rest=Address(where.known, rest))

    def _load_clamped(self, base: Value, dtype: DType, where: Address, index: Dim, clamp: Clamp) -> Value:
        """Neighbours where no lane is past an end, one element where all are past the same end, a gather for vectors between."""
        writer, lanes = self.writer, self.frame.lanes
        assert clamp.rest is not None
        start = writer.gep(base, dtype.llvm, self._scalar_offset(clamp.rest))
        first, low, high = self.dim(index), self.get(clamp.low), self.get(clamp.high)
        last = writer.add(first, i64(lanes - 1))
        near, far, edge, between, done = (writer.label(hint) for hint in ("near", "far", "edge", "between", "loaded"))
        inside = writer.op("and", writer.cmp("icmp sge", first, low), writer.cmp("icmp sle", last, high))
        writer.cond_br(inside, near, far)
        writer.start(near)
        neighbours = self._load_consecutive(writer.gep(start, dtype.llvm, first), dtype)
        incoming = [(neighbours, writer.block)]
        writer.br(done)
        writer.start(far)
        outside = writer.op("or", writer.cmp("icmp slt", last, low), writer.cmp("icmp sgt", first, high))
        writer.cond_br(outside, edge, between)
        writer.start(edge)
        at = writer.intrinsic("llvm.smax", writer.minimum(first, high), low)
        one = memory_load(writer, writer.gep(start, dtype.llvm, at), dtype, 1)
        incoming.append((writer.splat(one, lanes), writer.block))
        writer.br(done)
        writer.start(between)
        # What is computed here is not known elsewhere.
        inner = Scope(self.frame, self)
        incoming.append((inner._gather(base, dtype, inner._vector_offset(where)), writer.block))
        writer.br(done)
        writer.start(done)
        return writer.phi(neighbours.type, incoming)

    def place(self, name: str, indices: Sequence[Index]) -> Value:
        """The address of the element that lane 0 stands at."""
        buffer = self.frame.buffers[name]
        return self.writer.gep(
            self.frame.parameters.buffers[name], buffer.dtype.llvm, self._scalar_offset(address(buffer, indices))
        )

    def _scalar_offset(self, where: Address) -> Value:
        offset = self.dim(where.known)
        for value, stride in where.computed:
            offset = self.writer.add(offset, self.writer.mul(self.get(value), self.dim(stride)))
        return offset

    def _vector_offset(self, where: Address) -> Value:
        lanes = self.frame.lanes
        offset = self._index(where.known)
        if not offset.type.startswith("<"):
            offset = self.writer.splat(offset, lanes)
        for value, stride in where.computed:
            factor = self.vector(value)
            if stride != 1:
                factor = self.writer.op("mul", factor, self.writer.splat(self.dim(stride), lanes))
            offset = self.writer.op("add", offset, factor)
        return offset

    def _load_consecutive(self, pointer: Value, dtype: DType, backwards: bool = False) -> Value:
        """Neighbouring elements, the first at `pointer`; backwards the following lanes lie before it."""
        lanes = self.frame.lanes
        if backwards:
            pointer = self.writer.gep(pointer, dtype.llvm, i64(1 - lanes))
        if self.mask is None:
            loaded = memory_load(self.writer, pointer, dtype, lanes)
        else:
            mask = self._reversed(self.mask) if backwards else self.mask
            loaded = self._masked_load(pointer, dtype, mask, lanes)
        return self._reversed(loaded) if backwards else loaded

    def _masked_load(self, pointer: Value, dtype: DType, mask: Value, lanes: int) -> Value:
        loaded = self.writer.masked_load(pointer, vector(dtype.llvm, lanes), dtype.itemsize, mask)
        return to_register(self.writer, loaded, dtype)

    def _load_apart(self, pointer: Value, dtype: DType, stride: int) -> Value:
        """Elements `stride` apart, the first at `pointer`: whole vectors of what lies between, of which they are picked. The last
        vector ends with the last element, so nothing is read that lies behind it."""
        writer, lanes = self.writer, self.frame.lanes
        type_ = vector(dtype.llvm, lanes)
        begins = [lanes * number for number in range(stride - 1)] + [(stride - 1) * (lanes - 1)]
        found = Value("poison", type_)
        for begin in begins:
            whole = writer.load(writer.gep(pointer, dtype.llvm, i64(begin)), type_, dtype.itemsize)
            inside = [stride * lane - begin for lane in range(lanes)]
            order = [lanes + place if 0 <= place < lanes else lane for lane, place in enumerate(inside)]
            found = writer.shuffle(order, found, whole)
        return to_register(writer, found, dtype)

    def _gather(self, base: Value, dtype: DType, offset: Value) -> Value:
        lanes = self.frame.lanes
        type_ = vector(dtype.llvm, lanes)
        pointers = self.writer.emit(f"getelementptr {dtype.llvm}, ptr {base.text}, {offset}", vector("ptr", lanes))
        mask = self.mask or constant(True, "i1", lanes)
        loaded = self.writer.call(
            f"llvm.masked.gather.{mangle(type_)}.{mangle(pointers.type)}",
            type_,
            [pointers, Value(str(dtype.itemsize), "i32"), mask, constant(0, dtype.llvm, lanes)],
        )
        return to_register(self.writer, loaded, dtype)

    def store(self, name: str, indices: Sequence[Index], value: Scalar) -> None:
        """Write an expression to a buffer at the point (or the lanes) this scope stands at."""
        where = address(self.frame.buffers[name], indices)
        self.put(name, indices, self.vector(value) if self._varies_over_lanes(where) else self.get(value))

    def put(self, name: str, indices: Sequence[Index], value: Value) -> None:
        """Write a value, a vector where the place varies over lanes, to a buffer."""
        buffer = self.frame.buffers[name]
        base = self.frame.parameters.buffers[name]
        where = address(buffer, indices)
        result = to_memory(self.writer, value, buffer.dtype)
        if not self._varies_over_lanes(where):
            if lanes_of(result.type) > 1:
                result = self.writer.extract(result, 0)
            pointer = self.writer.gep(base, buffer.dtype.llvm, self._scalar_offset(where))
            if self.mask is not None and self._is_only_lane(where):
                self.writer.masked_store(result, pointer, buffer.dtype.itemsize, self.mask)
            else:
                self.writer.store(result, pointer, buffer.dtype.itemsize)
            return
        stride = self._constant_step(where)
        if stride in ("1", "-1"):
            pointer = self.writer.gep(base, buffer.dtype.llvm, self._scalar_offset(where))
            self._store_consecutive(result, pointer, buffer, stride == "-1")
            return
        self._scatter(result, base, buffer.dtype, self._vector_offset(where))

    def _varies_over_lanes(self, where: Address) -> bool:
        return self.frame.lanes > 1 and self._follows_lanes(where)

    def _is_only_lane(self, where: Address) -> bool:
        """Whether a place follows the lane where registers have only one, which the mask may leave out."""
        return self.frame.lanes == 1 and self._follows_lanes(where)

    def _follows_lanes(self, where: Address) -> bool:
        needed = (self.frame.dependencies.of(one) for one, _ in where.computed)
        return bool(symbols(where.known) & self.vector_axes) or any(one & self.vector_axes for one in needed)

    def _constant_step(self, where: Address) -> str:
        """How far addresses of neighbouring lanes lie apart, as the text of a number; empty where that is not one number."""
        varying = symbols(where.known) & self.vector_axes
        if any(self.varies(one) for one, _ in where.computed) or not self._is_linear(where.known, varying):
            return ""
        return self._lane_step(where.known, varying).text

    def _reversed(self, value: Value) -> Value:
        """The lanes in the opposite order."""
        return self.writer.shuffle(range(lanes_of(value.type))[::-1], value)

    def _store_consecutive(self, result: Value, pointer: Value, buffer: Buffer, backwards: bool = False) -> None:
        dtype = buffer.dtype
        mask = self.mask
        if backwards:
            result = self._reversed(result)
            pointer = self.writer.gep(pointer, dtype.llvm, i64(1 - self.frame.lanes))
            mask = self._reversed(mask) if mask is not None else None
        if self.stored is not None and not backwards:
            self._store_first(result, pointer, dtype.itemsize, self.stored)
            return
        if mask is None and buffer.name in self.frame.streamed and not backwards:
            self.writer.store(result, pointer, dtype.itemsize * self.frame.lanes, ", !nontemporal !{i32 1}")
            return
        if mask is None:
            self.writer.store(result, pointer, dtype.itemsize)
            return
        self.writer.masked_store(result, pointer, dtype.itemsize, mask)

    def _scatter(self, result: Value, base: Value, dtype: DType, offset: Value) -> None:
        lanes = self.frame.lanes
        pointers = self.writer.emit(f"getelementptr {dtype.llvm}, ptr {base.text}, {offset}", vector("ptr", lanes))
        mask = self.mask or constant(True, "i1", lanes)
        self.writer.call(
            f"llvm.masked.scatter.{mangle(result.type)}.{mangle(pointers.type)}",
            "void",
            [result, pointers, Value(str(dtype.itemsize), "i32"), mask],
        )

    def _store_first(self, value: Value, pointer: Value, itemsize: int, count: int) -> None:
        """The first lanes, in pieces that are powers of two."""
        w, begin = self.writer, 0
        element = element_of(value.type)
        for width in (1 << bit for bit in reversed(range(count.bit_length())) if count & 1 << bit):
            piece = w.shuffle(range(begin, begin + width), value)
            w.store(piece, w.gep(pointer, element, i64(begin)), itemsize)
            begin += width

    def tail_mask(self, index: Value, end: Value) -> Value:
        """Lanes whose index (lane 0 at `index`) is below `end`."""
        lanes = self.frame.lanes
        left = self.writer.intrinsic("llvm.smin", self.writer.sub(end, index), i64(lanes))
        narrow = self.writer.cast("trunc", left, "i32")
        return self.writer.cmp("icmp slt", self.writer.iota("i32", lanes), self.writer.splat(narrow, lanes))


def element_type(dtype: DType, lanes: int) -> str:
    """The register type of `lanes` elements."""
    return vector(register_type(dtype), lanes)
