"""Which operators become one kernel.

Nodes are visited from the outputs towards the inputs. A node joins the cluster of its readers when all of them
are in that one cluster and the join is legal; since the visit is in reverse topological order this can never
close a cycle. Otherwise its value is written to memory by a cluster of its own, or, when it costs next to nothing,
computed again wherever it is read.

A cluster has a *domain*, the shape its results have. For every value inside it is known at which indices it is
read, as index tuples over the domain's axes `%0, %1, ...`; legality is a question about these tuples:

    a reduction may join where it is read at one index that is a prefix of the domain's axes: that prefix becomes
        the cluster's outer axes, the others are walked row by row (softmax, layer norm);
    a contraction may join where it is read at all axes of the domain, once: what follows it is its epilogue;
    anything pointwise may join; a movement is an index map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pierian.compiler.dim import Dim, product, symbol, symbols
from pierian.compiler.fusion.cost import Limits, is_expensive_row, is_free, is_wide_epilogue, recompute_cost, source
from pierian.compiler.graph.graph import Graph
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
        stores: the values it writes to memory.
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

    def streams(self, producer: Node, stored: bool) -> int:
        """Arrays as large as the domain that the cluster walks apart from what `producer` hands it: those it reads, as far as
        is known before their own nodes are placed, and those it writes, with the producer's result where that is `stored`."""
        size = product(self.domain)
        outside = (value for member in self.members for value in member.inputs if value.node not in self.members)
        read = {source(value) for value in outside if value.node is not producer}
        walked = [value for value in read if value.type.size == size and not is_free(value.node)]
        return len(walked) + len(self.stores) + stored


@dataclass(slots=True)
class Fusion:
    """The result: clusters in an order in which they can run, and who computes what.

    Attributes:
        clusters: in topological order.
        home: the cluster that stores a materialized value.
        duplicated: nodes computed again in every cluster that reads them; never stored.
    """

    clusters: list[Cluster]
    home: dict[Value, Cluster]
    duplicated: set[Node]
    reasons: dict[Node, str]


def fuse(graph: Graph, limits: Limits | None = None) -> Fusion:
    """Group the nodes of a portable graph (no compositions, no variables) into clusters."""
    return _Fuser(graph, limits or Limits()).run()


class _Fuser:
    def __init__(self, graph: Graph, limits: Limits) -> None:
        self.graph = graph
        self.limits = limits
        self.readers: dict[Value, dict[Cluster, None]] = {}  # clusters that read a value, in a fixed order
        self.materialized: set[Value] = set(graph.outputs)
        self.views: set[Value] = set()  # read by contractions and kernels: may only be an index map away from memory
        self.scattered: set[Value] = set()  # read at many indices per point (gather, concat)
        self.home: dict[Value, Cluster] = {}
        self.member: dict[Node, Cluster] = {}
        self.duplicated: set[Node] = set()
        self.reasons: dict[Node, str] = {}
        self.clusters: list[Cluster] = []

    def run(self) -> Fusion:
        for node in reversed(list(self.graph.nodes)):
            if node.op.name in ("placeholder", "constant"):
                continue
            self._place(node)
        return Fusion(self._ordered(), self.home, self.duplicated, self.reasons)

    # --- placing one node ------------------------------------------------------------------------------

    def _place(self, node: Node) -> None:
        if not any(value in self.readers or value in self.materialized for value in node.outputs):
            return  # nobody needs it
        op = node.op
        if op.kernel_rule is not None or op.has_bodies or op.alias:
            self._open(node, "single")
            return
        value = node.output
        clusters = list(self.readers.get(value, ()))
        stored = value in self.materialized
        if self.limits.fuse and len(clusters) == 1 and self._may_join(node, clusters[0], stored):
            self._join(node, clusters[0])
            if stored:
                self._store(clusters[0], value)
            return
        if clusters and not stored and self._may_duplicate(node, clusters):
            self.duplicated.add(node)
            for cluster in clusters:
                self._visit_inputs(node, cluster)
            return
        self._open(node, "contraction" if op.contract_rule is not None else "loop")

    def _open(self, node: Node, kind: str) -> None:
        cluster = Cluster(kind, node, node.output.shape)
        self.clusters.append(cluster)
        if kind == "single":
            cluster.members.add(node)
            self.member[node] = cluster
            for value in node.outputs:
                self._store(cluster, value)
            for value in node.inputs:
                self.readers.setdefault(value, {})[cluster] = None
                cluster.accesses[value] = None
                if node.op.kernel_rule is not None:
                    self.views.add(value)
                else:
                    self.materialized.add(value)
            return
        if node.op.reduction is not None or kind == "contraction":
            cluster.outer = len(cluster.domain)
        cluster.accesses[node.output] = [cluster.axes]
        self._store(cluster, node.output)
        self._join(node, cluster)

    def _store(self, cluster: Cluster, value: Value) -> None:
        cluster.stores.append(value)
        self.home[value] = cluster

    def _join(self, node: Node, cluster: Cluster) -> None:
        cluster.members.add(node)
        self.member[node] = cluster
        cluster.cost += node.op.cost
        if node.op.contract_rule is not None:
            cluster.kind = "contraction"
        self._visit_inputs(node, cluster)

    # --- legality -----------------------------------------------------------------------------------------

    def _may_join(self, node: Node, cluster: Cluster, stored: bool) -> bool:
        value = node.output
        op = node.op
        if cluster.kind == "single":
            return self._is_free_view(node) and value in self.views and not stored
        if value in self.views:
            return self._is_free_view(node) and not stored
        if cluster.cost + op.cost > self.limits.cluster_cost:
            return self._refuse(node, "the kernel would become too long")
        accesses = cluster.accesses.get(value)
        if stored and not self._is_full_member(cluster, value, accesses):
            return self._refuse(node, "it is needed in memory in another shape than the kernel's results")
        if op.reduction is not None or op.contract_rule is not None:
            return self._may_join_reduction(node, cluster, accesses, stored)
        if value in self.scattered and recompute_cost(node) > self.limits.recompute:
            return self._refuse(node, "it is read at scattered places and costs too much to compute again")
        if self._would_gather(node, cluster):
            return self._refuse(node, "it is turned around, and its reader would gather it element by element")
        return not self._is_stretched(node, cluster, accesses)

    def _may_join_reduction(self, node: Node, cluster: Cluster, accesses: list[Index] | None, stored: bool) -> bool:
        if accesses is None or len(accesses) != 1:
            return self._refuse(node, "it is read at several places of the kernel")
        if cluster.kind == "contraction":
            return self._refuse(node, "one kernel holds one contraction")
        read = tuple(entry for entry in accesses[0] if entry != 0)
        axes = [entry for entry in cluster.axes if entry != 0]
        if list(read) != axes[: len(read)]:
            return self._refuse(node, "it is not read along the kernel's leading axes")
        outer = next(
            position
            for position in range(len(cluster.domain) + 1)
            if sum(entry != 0 for entry in cluster.axes[:position]) == len(read)
        )
        if len(read) == len(axes):
            outer = len(cluster.domain)
        if node.op.contract_rule is not None:
            if outer != len(cluster.domain) or cluster.outer is not None or node.output.shape != cluster.domain:
                return self._refuse(node, "its result is not read element by element")
            if cluster.cost > self.limits.epilogue_cost:
                return self._refuse(node, "the epilogue would be too long")
            if is_wide_epilogue(cluster.domain, cluster.streams(node, stored), self.limits):
                return self._refuse(node, "tiles would walk too many arrays beside the result in short pieces")
            cluster.outer = outer
            return True
        if cluster.outer is not None and cluster.outer != outer:
            return self._refuse(node, "the kernel walks its rows along other axes")
        if outer < len(cluster.domain):
            axis: tuple[int, ...] = node.attributes["axis"]
            source = node.inputs[0]
            if axis != tuple(range(source.type.rank - len(axis), source.type.rank)):
                return self._refuse(node, "it does not reduce the innermost axes")
            if is_expensive_row(cluster.domain[:outer], cluster.domain[outer:], self.limits):
                return self._refuse(node, "its rows are too long to share a kernel with what follows")
        cluster.outer = outer
        return True

    def _is_full_member(self, cluster: Cluster, value: Value, accesses: list[Index] | None) -> bool:
        if accesses is None:
            return False
        if value.shape == cluster.domain and cluster.axes in accesses:
            return True
        if value.node.op.reduction is None:
            return False
        return len(accesses) == 1 and len(value.shape) >= 1 and value.shape == cluster.domain

    def _is_stretched(self, node: Node, cluster: Cluster, accesses: list[Index] | None) -> bool:
        """True where joining would compute an expensive value many times over (broadcast along leading axes)."""
        if node.op.index_map_rule is not None or recompute_cost(node) <= self.limits.recompute:
            return False
        if accesses is None:
            self._refuse(node, "it is read at many places and costs too much to compute again")
            return True
        for index in accesses:
            used = frozenset().union(*(symbols(entry) for entry in index)) if index else frozenset()
            last = next((entry for entry in reversed(cluster.axes) if entry != 0), None)
            missing = [entry for entry in cluster.axes if entry != 0 and not symbols(entry) <= used]
            rows = any(name.startswith("%r") for name in used)
            if missing and last is not None and symbols(last) <= used and not rows:
                self._refuse(node, "it is broadcast along leading axes and costs too much to compute again")
                return True
        return False

    def _may_duplicate(self, node: Node, clusters: Sequence[Cluster]) -> bool:
        op = node.op
        if op.reduction is not None or op.contract_rule is not None or op.random:
            return False
        value = node.output
        if value in self.views or any(cluster.kind == "single" for cluster in clusters):
            return self._is_free_view(node)
        if any(self._would_gather(node, cluster) for cluster in clusters):
            return False
        if op.index_map_rule is not None or not node.inputs:
            return True
        if value in self.scattered and recompute_cost(node) > 0:
            return False
        if recompute_cost(node) > self.limits.recompute or len(clusters) > self.limits.duplicates:
            return self._refuse(node, "several kernels read it and it costs too much to compute again")
        # Only from memory: a chain of duplicated nodes would grow without bound.
        return all(
            source.node.op.name in ("placeholder", "constant") or source.type.size == 1 for source in node.inputs
        )

    def _would_gather(self, node: Node, cluster: Cluster) -> bool:
        """Whether a reader at computed places loses the neighbourhood of elements that a copy in order would keep."""
        value = node.output
        return value in self.scattered and _moves_last_axis(node) and not _is_larger(value, cluster)

    def _is_free_view(self, node: Node) -> bool:
        op = node.op
        return op.index_map_rule is not None or (op.lower_rule is not None and not node.inputs and op.cost == 0)

    def _refuse(self, node: Node, reason: str) -> bool:
        self.reasons[node] = reason
        return False

    # --- who reads what, and where -------------------------------------------------------------------------

    def _visit_inputs(self, node: Node, cluster: Cluster) -> None:
        accesses = cluster.accesses.get(node.output) if cluster.kind != "single" else None
        for position, value in enumerate(node.inputs):
            self.readers.setdefault(value, {})[cluster] = None
            if node.op.contract_rule is not None or (node.output in self.views and self._is_free_view(node)):
                self.views.add(value)
            if node.op.lower_rule is not None:
                self.scattered.add(value)
            self._record(cluster, value, self._input_accesses(node, position, accesses))

    def _record(self, cluster: Cluster, value: Value, added: list[Index] | None) -> None:
        if value in cluster.accesses:
            known = cluster.accesses[value]
            if known is None:
                return
            if added is None:
                cluster.accesses[value] = None
                return
            merged = list(dict.fromkeys((*known, *added)))
            cluster.accesses[value] = merged if len(merged) <= _MAX_ACCESSES else None
        else:
            cluster.accesses[value] = added

    def _input_accesses(self, node: Node, position: int, accesses: list[Index] | None) -> list[Index] | None:
        op = node.op
        if accesses is None or op.lower_rule is not None or op.contract_rule is not None:
            return None
        value = node.inputs[position]
        if op.scalar_rule is not None:
            return _unique(broadcast_index(index, value.shape) for index in accesses)
        if op.reduction is not None:
            return _unique(
                reduction_index(index, node, [symbol(f"%r{id(node)}_{i}") for i in node.attributes["axis"]])
                for index in accesses
            )
        if op.index_map_rule is not None:
            found = []
            for index in accesses:
                mapped = op.index_map_rule(index, *(v.type for v in node.inputs), **node.attributes)
                if any(isinstance(entry, Scalar) for entry in mapped):
                    return None
                found.append(tuple(mapped))
            return _unique(found)
        return None

    # --- order ------------------------------------------------------------------------------------------------

    def _ordered(self) -> list[Cluster]:
        """Clusters in an order in which they can run: those that open later in the visit come earlier, made exact
        by a depth-first walk along what each cluster reads from memory."""
        needs: dict[Cluster, dict[Cluster, None]] = {cluster: {} for cluster in self.clusters}
        for value, readers in self.readers.items():
            source = self.home.get(value)
            if source is None:
                continue
            for reader in readers:
                if reader is not source:
                    needs[reader][source] = None
        order: dict[Cluster, None] = {}
        for root in reversed(self.clusters):
            stack = [(root, iter(needs[root]))]
            entered = {root}
            while stack:
                cluster, remaining = stack[-1]
                if cluster in order:
                    stack.pop()
                    continue
                for needed in remaining:
                    if needed not in order and needed not in entered:
                        entered.add(needed)
                        stack.append((needed, iter(needs[needed])))
                        break
                else:
                    order[cluster] = None
                    stack.pop()
        return list(order)


def _moves_last_axis(node: Node) -> bool:
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


def _is_larger(value: Value, cluster: Cluster) -> bool:
    """Whether a value has more elements than its reader's domain, as far as that is known."""
    size, domain = value.type.size, product(cluster.domain)
    return not isinstance(size, int) or not isinstance(domain, int) or size > domain


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


def _unique(indices: Iterable[Index]) -> list[Index]:
    return list(dict.fromkeys(indices))
