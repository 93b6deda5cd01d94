"""One cluster to one kernel, by pulling: each result asks its operator for its element at an index, the operator
asks for the elements it needs, down to loads from memory. Index maps compose on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pierian.compiler.dim import Dim, Symbolic, substitute, symbol, symbols
from pierian.compiler.dtype import DType, bool_, int64
from pierian.compiler.errors import LoweringError
from pierian.compiler.frozen import replace
from pierian.compiler.fusion.cluster import Cluster, Fusion, broadcast_index, reduction_index
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Product, Reduce, Scan, Statement, Store
from pierian.compiler.kernel.program import Launch
from pierian.compiler.kernel.scalar import Index, Scalar
from pierian.compiler.location import union
from pierian.compiler.lowering.buffers import Buffers
from pierian.compiler.ops import rules
from pierian.compiler.shape import Shape

Indices = tuple[Index, ...]


class KernelBuilder:
    """What `lower` and `kernel` rules are given; collects the statements of one kernel.

    Attributes:
        s: constructors of scalar expressions.
    """

    def __init__(self, cluster: Cluster, fusion: Fusion, buffers: Buffers) -> None:
        self.s = ScalarBuilder()
        self.cluster = cluster
        self.fusion = fusion
        self.buffers = buffers
        self.kind = "contraction" if cluster.kind == "contraction" else "loop"
        self.parallel = 0
        self.axes: list[Axis] = []
        self.body: list[Statement] = []
        self._reads: dict[tuple[Value, Indices], Scalar] = {}
        self._parameters: dict[str, Buffer] = {}
        self._row_axes: tuple[Axis, ...] = ()
        self._reductions = 0
        self._inner = 0
        self._before: tuple[list[Axis], tuple[Statement, ...]] | None = None

    # --- for rules -----------------------------------------------------------------------------------------

    def read(self, value: Value, index: Indices) -> Scalar:
        """The element of a value at an index: computed here when the value's node is in this kernel, else loaded."""
        index = tuple(index)
        found = self._reads.get((value, index))
        return found if found is not None else self._evaluate(value, index)

    def read_inside(self, value: Value, index: Indices, extents: Mapping[int, Dim], fill: float) -> Scalar:
        """The element of a value at an index, or `fill` where the index along an axis of `extents` is outside 0 <= i < extent."""
        s = self.s
        inside = s.const(True, bool_)
        source = list(index)
        for axis, extent in extents.items():
            place, last = rules.index_value(s, index[axis]), s.sub(s.dim(extent), 1)
            inside = s.logical_and(inside, s.logical_and(s.compare("ge", place, 0), s.compare("le", place, last)))
            source[axis] = s.max(s.min(place, last), 0)
        return s.select(inside, self.read(value, tuple(source)), s.const(fill, value.dtype))

    def new_axis(self, extent: Dim) -> tuple[Axis, Dim]:
        """A fresh inner axis and its symbol (the index 0 where there is just one point)."""
        axis = Axis(f"%k{self._inner}", extent)
        self._inner += 1
        return axis, symbol(axis.name)

    def reduce(self, combiner: str, axes: tuple[Axis, ...], value: Scalar) -> Scalar:
        """Combine a value over axes; the result is the same for all of them."""
        name = f"r{self._reductions}"
        self._reductions += 1
        self.body.append(Reduce(name, combiner, axes, value))
        return ir.reduced(name, int64 if combiner in ("argmax", "argmin") else value.dtype)

    def output(self, value: Value) -> str:
        """The buffer a value of this kernel is written to."""
        return self._parameter(self.buffers.temporary(value), value.dtype, value.shape)

    def store(self, buffer: str, index: Indices, value: Scalar, axes: tuple[Axis, ...] = ()) -> None:
        """Write one element at each point of `axes`."""
        self.body.append(Store(buffer, tuple(index), value, axes))

    def load(self, buffer: str, index: Indices, dtype: DType) -> Scalar:
        """The element of one of this kernel's own buffers."""
        return ir.load(buffer, tuple(index), dtype)

    def copy(self, source: Value, target: Value) -> None:
        """Before the kernel, `source` is copied to the buffer of `target` (unless its elements are all one constant,
        still a copy of that constant)."""
        axes = [Axis(f"%{i}", extent) for i, extent in enumerate(source.shape)]
        index = tuple(symbol(axis.name) for axis in axes)
        value = self.read(source, index)
        buffer = self.output(target)
        self._before = (axes, (Store(buffer, index, value),))

    def serial(
        self, axes: tuple[Axis, ...], buffer: str, index: Indices, value: Scalar, inner: tuple[Axis, ...]
    ) -> None:
        """Write at every point of `axes`, one after the other."""
        self.kind = "serial"
        self.axes = list(axes)
        self.body.append(Store(buffer, tuple(index), value, inner))

    def scan(self, axes: tuple[Axis, ...], statement: Scan) -> None:
        """At every point of `axes`, walk the statement's axis in order."""
        self.kind = "scan"
        self.axes = list(axes)
        self.body.append(statement)

    # --- pulling -------------------------------------------------------------------------------------------

    def _evaluate(self, value: Value, index: Indices) -> Scalar:
        """`read` without recursion through long chains of pointwise operators and movements."""
        stack = [(value, index)]
        while stack:
            wanted, at = stack[-1]
            if (wanted, at) in self._reads:
                stack.pop()
                continue
            node = wanted.node
            if not self._is_inside(wanted):
                self._reads[wanted, at] = self._load(wanted, at)
                continue
            needs = self._needs(node, at)
            missing = [need for need in needs if need not in self._reads]
            if missing:
                stack.extend(reversed(missing))
                continue
            self._reads[wanted, at] = self._compute(node, at, [self._reads[need] for need in needs])
        return self._reads[value, index]

    def _is_inside(self, value: Value) -> bool:
        node = value.node
        if node.op.name == "constant":
            return node.attributes["value"].is_scalar
        return (node in self.cluster.members and node.op.kernel_rule is None) or node in self.fusion.duplicated

    def _needs(self, node: Node, at: Indices) -> list[tuple[Value, Indices]]:
        """The elements a pointwise operator or a movement reads; other operators read by themselves."""
        op = node.op
        if op.scalar_rule is not None:
            return [(value, _broadcast(at, value.shape)) for value in node.inputs]
        if op.index_map_rule is not None:
            mapped = op.index_map_rule(at, *(value.type for value in node.inputs), **node.attributes)
            return [(node.inputs[0], tuple(mapped))]
        return []

    def _compute(self, node: Node, at: Indices, args: list[Scalar]) -> Scalar:
        op = node.op
        if op.name == "constant":
            return ir.const(node.attributes["value"].array.item(), node.output.dtype)
        if op.scalar_rule is not None:
            return op.scalar_rule(self.s, *args, **node.attributes)
        if op.index_map_rule is not None:
            return args[0]
        if op.reduction is not None:
            return self._reduction(node, at)
        if op.contract_rule is not None:
            return self._contraction(node, at)
        if op.lower_rule is not None:
            return op.lower_rule(self, node, at)
        raise LoweringError(
            f"operator {op.name!r} has no native code", where=node.describe(), location=node.location,
            advice="give its definition a scalar, index_map, reduction, contract, lower or kernel rule",
        )  # fmt: skip

    def _reduction(self, node: Node, at: Indices) -> Scalar:
        source = node.inputs[0]
        axes = tuple(Axis(self.new_axis(1)[0].name, source.shape[axis]) for axis in node.attributes["axis"])
        index = reduction_index(at, node, [symbol(axis.name) for axis in axes])  # type: ignore[arg-type]
        value = self.read(source, index)
        combiner = node.op.reduction
        assert combiner is not None
        return ir.convert(self.reduce(combiner, axes, value), node.output.dtype)

    def _contraction(self, node: Node, at: Indices) -> Scalar:
        assert node.op.contract_rule is not None
        extents, maps = node.op.contract_rule(*(value.type for value in node.inputs), **node.attributes)
        # An axis of one point stays only where there is no other.
        kept = [i for i, extent in enumerate(extents) if extent != 1] or [len(extents) - 1]
        axes = {i: self.new_axis(extents[i])[0] for i in kept}
        left, right, *bounds = maps(at, tuple(symbol(axes[i].name) if i in axes else 0 for i in range(len(extents))))
        lhs = self.read_inside(node.inputs[0], tuple(left), bounds[0], 0) if bounds else self.read(node.inputs[0], left)
        rhs = self.read(node.inputs[1], tuple(right))
        return self.reduce("sum", tuple(axes.values()), self.s.mul(lhs, rhs))

    def _load(self, value: Value, at: Indices) -> Scalar:
        buffer = self._parameter(self.buffers.name(value), value.dtype, value.shape)
        return ir.load(buffer, at, value.dtype)

    def _parameter(self, name: str, dtype: DType, shape: Shape) -> str:
        if name not in self._parameters:
            self._parameters[name] = Buffer(name, dtype, shape)
        return name

    # --- whole kernels -----------------------------------------------------------------------------------------

    def build(self) -> list[Launch]:
        """The kernel of the cluster and the launch that runs it; a copy comes first where the operator wants one."""
        cluster = self.cluster
        root = cluster.root
        if root.op.kernel_rule is not None:
            root.op.kernel_rule(self, root)
        else:
            self._build_stores()
        locations = [node.location for node in cluster.members] if len(cluster.members) <= 8 else [root.location]
        label = "+".join(sorted({node.op.name for node in cluster.members}))
        place = union(locations)
        found = []
        if self._before is not None:
            axes, body = self._before
            found.append(canonical_launch("loop", self._used(body), axes, body, 0, f"{label} (copy)", place))
        body = tuple(self.body)
        found.append(canonical_launch(self.kind, self._used(body), self.axes, body, self.parallel, label[:120], place))
        return found

    def _used(self, body: tuple[Statement, ...]) -> list[Buffer]:
        """The parameters that statements touch, in order of first use."""
        roots = [s.value for s in body]
        roots += [i for s in body if isinstance(s, Store) for i in s.indices if isinstance(i, Scalar)]
        names = {ir.load_parts(node)[0] for node in ir.postorder(roots) if node.op == "load"}
        names |= {s.buffer for s in body if isinstance(s, Store)}
        return [buffer for name, buffer in self._parameters.items() if name in names]

    def _build_stores(self) -> None:
        cluster = self.cluster
        domain = cluster.domain
        split = len(domain) if cluster.outer is None else cluster.outer
        all_axes = [Axis(f"%{i}", extent) for i, extent in enumerate(domain)]
        self.axes = [axis for axis in all_axes[:split] if axis.extent != 1]
        rows = tuple(axis for axis in all_axes[split:] if axis.extent != 1)
        for value in cluster.stores:
            full = cluster.full_index(value)
            at = full if full is not None else cluster.accesses[value][0]  # type: ignore[index]
            result = self.read(value, at)
            piece = self.fusion.pieces.get(value)
            whole, index = (piece.whole, piece.at(at)) if piece else (value, at)
            self.store(self.output(whole), index, result, () if full is None else rows)
        self.body = _by_level(self.body)


def _by_level(body: list[Statement]) -> list[Statement]:
    """Statements in the order of how many reductions, one after the other, they wait for: those of one level share a pass."""
    levels: dict[str, int] = {}
    keys: list[tuple[int, bool]] = []
    for statement in body:
        below = [node.attribute for node in ir.postorder([statement.value]) if node.op == "reduced"]
        level = max((levels[str(name)] + 1 for name in below), default=0)
        if isinstance(statement, Reduce):
            levels[statement.name] = level
        keys.append((level, not statement.axes))
    return [body[i] for i in sorted(range(len(body)), key=keys.__getitem__)]


def canonical_launch(
    kind: str,
    buffers: Iterable[Buffer],
    axes: Iterable[Axis],
    body: Iterable[Statement],
    parallel: int,
    label: str,
    location: object,
    local: Iterable[Buffer] = (),
) -> Launch:
    """A kernel with parameters renamed by position, so that equal work gives equal kernels, and its launch."""
    used, inside = list(buffers), list(local)
    names = {buffer.name: f"b{i}" for i, buffer in enumerate(used)} | {buffer.name: buffer.name for buffer in inside}
    outer = tuple(axes)
    statements = tuple(body)
    axis_names = {axis.name for axis in outer}
    for statement in statements:
        axis_names |= {axis.name for axis in _inner_axes(statement)}
    found: dict[str, None] = {}
    for buffer in used:
        for extent in buffer.shape:
            found.update(dict.fromkeys(sorted(symbols(extent))))
    for axis in outer + tuple(axis for statement in statements for axis in _inner_axes(statement)):
        found.update(dict.fromkeys(sorted(symbols(axis.extent))))
    roots = [statement.value for statement in statements]
    found.update(dict.fromkeys(sorted(ir.axes_used(roots) - axis_names)))
    for statement in statements:
        if isinstance(statement, Store):
            for entry in statement.indices:
                if isinstance(entry, Symbolic):
                    found.update(dict.fromkeys(sorted(symbols(entry) - axis_names)))
    sizes = tuple(name for name in found if name not in axis_names)
    renamed: dict[str, Dim] = {name: symbol(f"d{i}") for i, name in enumerate(sizes)}
    rename = Renamer(names, renamed)
    kernel = Kernel(
        kind,
        tuple(rename.buffer(buffer) for buffer in used),
        tuple(f"d{i}" for i in range(len(sizes))),
        tuple(rename.axis(axis) for axis in outer),
        tuple(rename.statement(statement) for statement in statements),
        parallel,
        tuple(rename.buffer(buffer) for buffer in inside),
    )
    return Launch(kernel, tuple(b.name for b in used), tuple(symbol(n) for n in sizes), label, location)  # type: ignore[arg-type]


def _inner_axes(statement: Statement) -> tuple[Axis, ...]:
    return (*statement.axes, *statement.over) if isinstance(statement, Product) else statement.axes


class Renamer:
    """Rewrites expressions with other buffer names, sizes and axes; each shared node once."""

    def __init__(self, buffers: dict[str, str], sizes: dict[str, Dim]) -> None:
        self.buffers = buffers
        self.sizes = sizes
        self.done: dict[Scalar, Scalar] = {}

    def buffer(self, buffer: Buffer) -> Buffer:
        return Buffer(self.buffers[buffer.name], buffer.dtype, tuple(substitute(d, self.sizes) for d in buffer.shape))

    def axis(self, axis: Axis) -> Axis:
        return Axis(axis.name, substitute(axis.extent, self.sizes))

    def statement(self, statement: Statement) -> Statement:
        axes = tuple(self.axis(axis) for axis in statement.axes)
        value = self.expression(statement.value)
        if isinstance(statement, Reduce):
            return Reduce(statement.name, statement.combiner, axes, value)
        indices = tuple(self.index(entry) for entry in statement.indices)
        if isinstance(statement, Product):
            statement = replace(statement, over=tuple(self.axis(axis) for axis in statement.over))
        return replace(statement, buffer=self.buffers[statement.buffer], indices=indices, value=value, axes=axes)

    def index(self, entry: Index) -> Index:
        return self.expression(entry) if isinstance(entry, Scalar) else substitute(entry, self.sizes)

    def expression(self, root: Scalar) -> Scalar:
        for node in ir.postorder([root]):
            if node not in self.done:
                self.done[node] = self._node(node)
        return self.done[root]

    def _node(self, node: Scalar) -> Scalar:
        if node.op == "load":
            buffer, indices = ir.load_parts(node)
            mapped = tuple(
                self.done[entry] if isinstance(entry, Scalar) else substitute(entry, self.sizes) for entry in indices
            )
            return ir.load(self.buffers[buffer], mapped, node.dtype)
        if node.op == "dim":
            assert isinstance(node.attribute, Symbolic)
            return ir.dim(substitute(node.attribute, self.sizes))
        if not node.args:
            return node
        return ir.scalar(node.op, node.dtype, tuple(self.done[arg] for arg in node.args), node.attribute)


def _broadcast(at: Indices, shape: Shape) -> Indices:
    return broadcast_index(at, shape)  # type: ignore[arg-type]
