"""Clusters: the nodes that become one kernel, and at which indices their values are read inside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pierian.compiler.dim import Dim, product, symbol, symbols
from pierian.compiler.frozen import frozen
from pierian.compiler.fusion.cost import is_free, source
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.shape import Shape

Index = tuple[Dim, ...]
# More index tuples than this for one value are not told apart: the value counts as read "anywhere".
_MAX_ACCESSES = 6


@dataclass(eq=False, slots=True)
class Cluster:
    """Nodes that become one kernel.

    Attributes:
        kind: `loop`, `contraction`, or `single` for a node that is its own kernel or control flow.
        root: the node that opened it.
        domain: the shape of its full results.
        outer: how many leading axes of the domain are outer axes; None while nothing needs rows.
        members: the nodes computed inside.
        stores: the values it writes to memory: as large as the domain, or one element for each row.
        accesses: the indices at which member values and values read from memory are read; None for anywhere.
        cost: scalar operations per point of the domain, roughly.
    """

    kind: str
    root: Node
    domain: Shape
    outer: int | None = None
    members: set[Node] = field(default_factory=set)
    stores: list[Value] = field(default_factory=list)
    accesses: dict[Value, list[Index] | None] = field(default_factory=dict)
    cost: int = 0

    @property
    def axes(self) -> Index:
        """The domain's axes as an index tuple; an axis of size one is always at 0."""
        return tuple(0 if dim == 1 else symbol(f"%{i}") for i, dim in enumerate(self.domain))

    def record(self, value: Value, added: list[Index] | None) -> None:
        """Note more indices at which a value is read."""
        known = self.accesses.get(value, [])
        if known is None or added is None:
            self.accesses[value] = None
            return
        merged = unique((*known, *added))
        self.accesses[value] = merged if len(merged) <= _MAX_ACCESSES else None

    def row_of(self, value: Value) -> int | None:
        """How many leading axes of the domain `value` is read along, where it is read at just one index made of them."""
        accesses = self.accesses.get(value)
        if accesses is None or len(accesses) != 1:
            return None
        read = [entry for entry in accesses[0] if entry != 0]
        axes = [entry for entry in self.axes if entry != 0]
        if read != axes[: len(read)]:
            return None
        if len(read) == len(axes):
            return len(self.domain)
        inner = self.axes
        return next(p for p in range(len(inner) + 1) if sum(entry != 0 for entry in inner[:p]) == len(read))

    def is_turned(self, value: Value) -> bool:
        """Whether a product is read at just one index made of all axes in another order, the domain's last among its own last two
        (the rows or the columns of tiles, which an epilogue can store along) or one that both operands lie along as well."""
        accesses = self.accesses.get(value)
        if accesses is None or len(accesses) != 1:
            return False
        read = [entry for entry in accesses[0] if entry != 0]
        axes = [entry for entry in self.axes if entry != 0]
        if not (len(read) == len(axes) > 1 and read != axes and set(read) == set(axes)):
            return False
        return axes[-1] in read[-2:] or _operands_lie_along(value, accesses[0].index(axes[-1]))

    def is_full(self, value: Value) -> bool:
        """Whether `value` is as large as the domain and read at its axes, perhaps at other places too."""
        return self.full_index(value) is not None

    def full_index(self, value: Value) -> Index | None:
        """Where a value that is as large as the domain is read at its axes; axes of one point may stand elsewhere."""
        accesses = self.accesses.get(value)
        if accesses is None or points(value.shape) != points(self.domain):
            return None
        wanted = [entry for entry in self.axes if entry != 0]
        return next((index for index in accesses if [entry for entry in index if entry != 0] == wanted), None)

    def streams(self, producer: Node, stored: bool) -> int:
        """Arrays as large as the domain that the cluster walks apart from what `producer` hands it: those it reads, as far as
        is known before their own nodes are placed, and those it writes, with the producer's result where that is `stored`."""
        size = product(self.domain)
        outside = (value for member in self.members for value in member.inputs if value.node not in self.members)
        read = {source(value) for value in outside if value.node is not producer}
        walked = [value for value in read if value.type.size == size and not is_free(value.node)]
        return len(walked) + len(self.stores) + stored


@frozen
class Piece:
    """A value as a part of another one.

    Attributes:
        whole: the other one.
        places: along each axis, where its first element lies in the whole, and how far apart its elements do.
    """

    whole: Value
    places: tuple[tuple[Dim, int], ...]

    def at(self, index: Index) -> Index:
        """Where in the whole an element lies."""
        return tuple(entry * apart + first for entry, (first, apart) in zip(index, self.places, strict=True))


@dataclass(slots=True)
class Fusion:
    """The result: clusters in an order in which they can run, and who computes what.

    Attributes:
        clusters: in topological order.
        home: the cluster that stores a materialized value.
        duplicated: nodes computed again in every cluster that reads them; never stored.
        reasons: why a node that is computed for memory does not share the kernel of its readers.
        pieces: where values lie that are stored as parts of others.
    """

    clusters: list[Cluster]
    home: dict[Value, Cluster]
    duplicated: set[Node]
    reasons: dict[Node, str]
    pieces: dict[Value, Piece] = field(default_factory=dict)

    def traffic(self, cluster: Cluster) -> tuple[Dim, Dim]:
        """Bytes a cluster reads and writes as its kernel, each array once: the numbers behind the decisions."""
        computed = cluster.members | self.duplicated
        read = {source(value) for value in cluster.accesses if value.node not in computed and not is_free(value.node)}
        return sum((_bytes(value) for value in read), start=0), sum((_bytes(v) for v in cluster.stores), start=0)


def _bytes(value: Value) -> Dim:
    return value.type.size * value.dtype.itemsize


def moves_last_axis(node: Node) -> bool:
    """True for a movement after which neighbours along the last axis were no neighbours before."""
    if node.op.index_map_rule is None or node.output.type.rank == 0:
        return False
    index = tuple(0 if dim == 1 else symbol(f"%{i}") for i, dim in enumerate(node.output.shape))
    mapped = node.op.index_map_rule(index, *(value.type for value in node.inputs), **node.attributes)
    last = next((entry for entry in reversed(index) if entry != 0), 0)
    places = [
        i
        for i, entry in enumerate(mapped)
        if last != 0 and not isinstance(entry, Scalar) and symbols(last) <= symbols(entry)
    ]
    inner = [i for i, dim in enumerate(node.inputs[0].shape) if dim != 1]
    return bool(places) and bool(inner) and places[-1] != inner[-1]


def _operands_lie_along(value: Value, batch: int) -> bool:
    """Whether elements that are neighbours along a batch axis of a product are neighbours in the memory of both its operands."""
    for operand in value.node.inputs[:2]:
        axis = batch - (value.type.rank - operand.type.rank)
        if axis < 0 or operand.node.op.index_map_rule is None:
            return False
        index = tuple(symbol(f"%{i}") for i in range(operand.type.rank))
        inputs = (one.type for one in operand.node.inputs)
        mapped = operand.node.op.index_map_rule(index, *inputs, **operand.node.attributes)
        if not mapped or mapped[-1] != index[axis]:
            return False
    return True


def is_larger(value: Value, cluster: Cluster) -> bool:
    """Whether a value has more elements than its reader's domain, as far as that is known."""
    size, domain = value.type.size, product(cluster.domain)
    return not isinstance(size, int) or not isinstance(domain, int) or size > domain


def walks_alike(value: Value, large: Cluster, small: Cluster) -> bool:
    """Whether two clusters read a value they both have in memory in the same order: for reductions over the same leading axes, or
    row by row, where `small` has results for whole rows only."""
    one, other = large.accesses.get(value), small.accesses.get(value)
    if one is None or other is None or small.outer != len(small.domain):
        return False
    if large.domain == small.domain and large.outer == small.outer:
        patterns = {tuple("reduced" if _is_reduced(entry) else entry for entry in index) for index in (*one, *other)}
        return len(patterns) == 1 and "reduced" in next(iter(patterns))
    rows = large.outer
    if not rows or points(small.domain) != points(large.domain[:rows]) or small.domain[:rows] != large.domain[:rows]:
        return False
    return all(index[:rows] == large.axes[:rows] and len(index) > rows for index in (*one, *other))


def _is_reduced(entry: Dim) -> bool:
    return str(entry).startswith("%r")


def points(shape: Shape) -> Shape:
    """A shape without its axes of one point."""
    return tuple(dim for dim in shape if dim != 1)


def input_accesses(node: Node, position: int, accesses: list[Index] | None) -> list[Index] | None:
    """At which indices an input is read when the node's result is wanted at `accesses`; None for anywhere."""
    op = node.op
    if accesses is None or op.lower_rule is not None or op.contract_rule is not None:
        return None
    value = node.inputs[position]
    if op.scalar_rule is not None:
        return unique(broadcast_index(index, value.shape) for index in accesses)
    if op.reduction is not None:
        axes = [symbol(f"%r{id(node)}_{i}") for i in node.attributes["axis"]]
        return unique(reduction_index(index, node, axes) for index in accesses)
    if op.index_map_rule is not None:
        found = []
        for index in accesses:
            mapped = op.index_map_rule(index, *(v.type for v in node.inputs), **node.attributes)
            if any(isinstance(entry, Scalar) for entry in mapped):
                return None
            found.append(tuple(mapped))
        return unique(found)
    return None


def broadcast_index(index: Index, shape: Shape) -> Index:
    """Where an input of `shape` is read when the broadcast result is computed at `index`."""
    offset = len(index) - len(shape)
    return tuple(0 if dim == 1 else index[axis + offset] for axis, dim in enumerate(shape))


def reduction_index(index: Index, node: Node, axes: Sequence[Dim]) -> Index:
    """Where the input of a reduction is read when its result is computed at `index` and the reduced axes stand
    at `axes`."""
    reduced: tuple[int, ...] = node.attributes["axis"]
    inner = dict(zip(reduced, axes, strict=True))
    outer = list(index)
    if node.attributes["keepdims"]:
        outer = [entry for position, entry in enumerate(index) if position not in inner]
    remaining = iter(outer)
    return tuple(
        inner[position] if position in inner else next(remaining) for position in range(node.inputs[0].type.rank)
    )


def unique(indices: Iterable[Index]) -> list[Index]:
    """Index tuples, each once, in order."""
    return list(dict.fromkeys(indices))
