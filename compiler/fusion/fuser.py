"""Which operators become one kernel.

Nodes are visited from the outputs towards the inputs. A node joins the cluster of its readers when all of them
are in that one cluster and the join is legal; since the visit is in reverse topological order this can never
close a cycle. With several reading clusters there are four ways, tried in this order:

    they merge into one that computes the node once (a loss and its gradient, two results of one pointwise chain);
    the node, costing next to nothing, is computed again in each of them;
    one of them computes it for itself and stores it for the others (the statistics of a layer norm);
    it gets a cluster of its own.

A cluster has a *domain*, the shape its results have. For every value inside it is known at which indices it is
read, as index tuples over the domain's axes `%0, %1, ...`; legality is a question about these tuples:

    a reduction may join where it is read at one index that is a prefix of the domain's axes: that prefix becomes
        the cluster's outer axes, the others are walked row by row (softmax, layer norm);
    a contraction may join where it is read at all axes of the domain, once: what follows it is its epilogue;
    pointwise work may join a contraction that reads each of its elements once, as a product with a vector does;
    anything pointwise may join; a movement is an index map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.dim import symbols
from pierian.compiler.fusion.chain import Chain, anchored, feeders
from pierian.compiler.fusion.cluster import (
    Cluster,
    Fusion,
    Index,
    Piece,
    input_accesses,
    is_larger,
    moves_last_axis,
    points,
    walks_alike,
)
from pierian.compiler.fusion.cost import (
    Limits,
    is_expensive_row,
    is_free,
    is_wide_epilogue,
    is_worth_streaming,
    reads_once,
    recompute_cost,
)
from pierian.compiler.fusion.order import ClusterGraph
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value

# Readers of one value that are looked at for sharing it, and clusters that each of them is tried with: a value that very many
# read must not cost the square of their number.
_READERS = 16
_TRIES = 4
# Outer axes of a merged cluster that walks no rows so far.
NO_ROWS = -1


def fuse(graph: Graph, limits: Limits | None = None) -> Fusion:
    """Group the nodes of a portable graph (no compositions, no variables) into clusters."""
    return _Fuser(graph, limits or Limits()).run()


class _Fuser:
    def __init__(self, graph: Graph, limits: Limits) -> None:
        self.graph = graph
        self.limits = limits
        self.order = ClusterGraph()
        self.readers: dict[Value, dict[Cluster, None]] = {}  # clusters that read a value, in a fixed order
        self.materialized: set[Value] = set(graph.outputs)
        self.views: set[Value] = set()  # read by contractions and kernels: may only be an index map away from memory
        self.once: set[Value] = set()  # those of which a contraction reads each element once
        self.scattered: set[Value] = set()  # read at many indices per point (gather, concat)
        self.home: dict[Value, Cluster] = {}
        self.duplicated: set[Node] = set()
        self.reasons: dict[Node, str] = {}
        self.pieces: dict[Value, Piece] = {}
        self.feeders = feeders(graph)
        self.anchored = anchored(graph)

    def run(self) -> Fusion:
        for node in reversed(list(self.graph.nodes)):
            if node.op.name in ("placeholder", "constant"):
                self._merged_readers(node)
            else:
                self._place(node)
        return Fusion(self.order.ordered(), self.home, self.duplicated, self.reasons, self.pieces)

    # --- placing one node ------------------------------------------------------------------------------

    def _place(self, node: Node) -> None:
        if not any(value in self.readers or value in self.materialized for value in node.outputs):
            return  # nobody needs it
        op = node.op
        if op.kernel_rule is not None or op.has_bodies or op.alias:
            self._open(node, "single")
            return
        stored = node.output in self.materialized
        clusters = self._merged_readers(node)
        if all(value.node.op.contract_rule is not None for value in node.inputs) and self._take_apart(node):
            return  # products are stored anyway
        if self.limits.fuse and len(clusters) == 1 and self._may_join(node, clusters[0], stored):
            self._join(node, clusters[0])
            if stored:
                self._store(clusters[0], node.output)
            return
        if clusters and not stored and self._may_duplicate(node, clusters):
            self.duplicated.add(node)
            self.reasons.pop(node, None)
            for cluster in clusters:
                self._visit_inputs(node, cluster)
            return
        host = self._host(node, clusters)
        if host is not None:
            self._join(node, host)
            self._store(host, node.output)
            return
        if self._take_apart(node):
            return
        self._open(node, "contraction" if op.contract_rule is not None else "loop")

    def _open(self, node: Node, kind: str) -> None:
        cluster = Cluster(kind, node, node.output.shape)
        self.order.add(cluster)
        if kind == "single":
            cluster.members.add(node)
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

    def _take_apart(self, node: Node) -> bool:
        """Let the inputs of an operator that puts them side by side be computed where they will lie, so that nothing is left of
        the operator itself; only where all of them are computed here, and for it alone."""
        rule = node.op.pieces_rule
        if rule is None or not self.limits.fuse:
            return False
        for value in node.inputs:
            if value in self.materialized or sum(value.uses.values()) != 1 or not _is_shareable(value.node):
                return False
        places = rule(*(value.type for value in node.inputs), **node.attributes)
        for value, place in zip(node.inputs, places, strict=True):
            self.pieces[value] = Piece(node.output, tuple(place))
            self.materialized.add(value)
        return True

    def _store(self, cluster: Cluster, value: Value) -> None:
        cluster.stores.append(value)
        self.home[value] = cluster
        readers = self.readers.get(value, {})
        if value in self.pieces:
            whole = self.pieces[value].whole
            self.home.setdefault(whole, cluster)
            readers = self.readers.get(whole, {})
        for reader in readers:
            self.order.connect(reader, cluster)

    def _join(self, node: Node, cluster: Cluster) -> None:
        if node is not cluster.root:
            self.reasons.pop(node, None)  # another way was found
        cluster.members.add(node)
        cluster.cost += node.op.cost
        if node.op.contract_rule is not None:
            cluster.kind = "contraction"
        self._visit_inputs(node, cluster)

    def _visit_inputs(self, node: Node, cluster: Cluster) -> None:
        if not node.op.reads:
            return
        accesses = cluster.accesses.get(node.output) if cluster.kind != "single" else None
        for position, value in enumerate(node.inputs):
            self.readers.setdefault(value, {})[cluster] = None
            if node.op.contract_rule is not None:
                self.views.add(value)
                if reads_once(node, value):
                    self.once.add(value)
            elif node.output in self.views and (self._is_free_view(node) or self._is_prologue(node, cluster)):
                self.views.add(value)
                if node.output in self.once and value.type.size == node.output.type.size:
                    self.once.add(value)
            if node.op.lower_rule is not None:
                self.scattered.add(value)
            cluster.record(value, input_accesses(node, position, accesses))

    # --- several readers ----------------------------------------------------------------------------------

    def _merged_readers(self, node: Node) -> list[Cluster]:
        """The clusters that read a node, after merging those that can become one kernel which computes it once."""
        clusters = list(self.readers.get(node.output, ()))
        if not self.limits.fuse or len(clusters) < 2 or is_free(node):
            return clusters
        found: list[Cluster] = []
        for cluster in clusters:
            for position in range(len(found) - 1, max(len(found) - _TRIES, 0) - 1, -1):
                merged = self._merge(node, found[position], cluster)
                if merged is not None:
                    found[position] = merged
                    break
            else:
                found.append(cluster)
        return found

    def _merge(self, node: Node, first: Cluster, second: Cluster) -> Cluster | None:
        """The two as one, where both would compute `node` at the points of the smaller domain, or read it in the same order for
        reductions of their own, and neither needs the other."""
        if first.kind != "loop" or second.kind != "loop" or first.cost + second.cost > self.limits.cluster_cost:
            return None
        large, small = (first, second) if len(first.domain) >= len(second.domain) else (second, first)
        if not large.is_full(node.output) and large.row_of(node.output) is None:
            large, small = small, large
        outer = self._common_outer(node, large, small)
        both = (
            outer is not None
            and _is_shareable(node)
            and self._would_join(node, large)
            and self._would_join(node, small)
        )
        if not both and not walks_alike(node.output, large, small):
            return None
        if len(self._waiting_for(large) | self._waiting_for(small)) > 1:
            return None  # each would become the epilogue of a contraction of its own
        if self.order.may_depend(large, small) or self.order.may_depend(small, large):
            return None
        if both:
            large.outer = None if outer == NO_ROWS else outer
        large.members |= small.members
        large.stores += small.stores
        large.cost += small.cost
        for value, accesses in small.accesses.items():
            large.record(value, accesses)
            readers = self.readers.get(value)
            if readers is not None and small in readers:
                del readers[small]
                readers[large] = None
        for value in small.stores:
            self.home[value] = large
        self.order.merge(large, small)
        return large

    def _common_outer(self, node: Node, large: Cluster, small: Cluster) -> int | None:
        """The outer axes of two clusters together, NO_ROWS where none are needed yet; None where they walk different points."""
        value = node.output
        if large.domain == small.domain:
            if not (large.is_full(value) and small.is_full(value)) and large.row_of(value) != small.row_of(value):
                return None
            if large.row_of(value) == 0 or (large.outer is not None and small.outer not in (None, large.outer)):
                return None
            outer = small.outer if large.outer is None else large.outer
            return NO_ROWS if outer is None else outer
        # A cluster with one result for each row of the other.
        row = large.row_of(value)
        if row is None or row in (0, len(large.domain)) or large.outer not in (None, row):
            return None
        count = len(points(small.domain))
        if small.outer not in (None, len(small.domain)) or points(small.domain) != points(large.domain[:row]):
            return None
        if small.domain[:count] != large.domain[:count] or small.row_of(value) != len(small.domain):
            return None  # axes have the same numbers in both
        return None if is_expensive_row(large.domain[:row], large.domain[row:], self.limits) else row

    def _would_join(self, node: Node, cluster: Cluster) -> bool:
        """`_may_join` that leaves no trace."""
        outer = cluster.outer
        found = self._may_join(node, cluster, False)
        cluster.outer = outer
        return found

    def _waiting_for(self, cluster: Cluster) -> frozenset[Node]:
        """The contractions whose epilogue a cluster could still become (two at most are told apart)."""
        outside = [v for member in cluster.members for v in member.inputs if v.node not in cluster.members]
        found = (self.feeders.get(value, frozenset()) for value in outside if value not in self.home)
        return frozenset().union(*found)

    def _host(self, node: Node, clusters: Sequence[Cluster]) -> Cluster | None:
        """One of several reading clusters that computes the node for itself and stores it for the others."""
        value = node.output
        if (
            not self.limits.fuse
            or not 2 <= len(clusters) <= _READERS
            or not _is_shareable(node)
            or value.type.size == 1
        ):
            return None  # one number is not worth making kernels wait for each other
        fed = self.feeders.get(value, frozenset())
        for cluster in clusters:
            if cluster.kind != "loop" or (fed and (cluster.outer is not None or self._waiting_for(cluster) - fed)):
                continue
            if not (cluster.is_full(value) or self._is_of_rows(node, cluster)):
                continue
            if any(self.order.may_depend(cluster, other) for other in clusters if other is not cluster):
                continue
            if self._is_legal(node, cluster, True):
                if cluster.outer is None and not cluster.is_full(value):
                    cluster.outer = cluster.row_of(value)
                return cluster
        return None

    def _is_of_rows(self, node: Node, cluster: Cluster) -> bool:
        """Whether a node's result has one element for each row of a cluster (each point of its outer axes)."""
        row = cluster.row_of(node.output)
        if not row or cluster.outer not in (None, row):
            return False
        if is_expensive_row(cluster.domain[:row], cluster.domain[row:], self.limits):
            return False
        return points(node.output.shape) == points(cluster.domain[:row])

    # --- legality -----------------------------------------------------------------------------------------

    def _may_join(self, node: Node, cluster: Cluster, stored: bool) -> bool:
        value = node.output
        if cluster.kind == "single":
            return self._is_free_view(node) and value in self.views and not stored
        if value in self.views:
            return not stored and (self._is_free_view(node) or self._may_be_prologue(node, cluster))
        return self._is_legal(node, cluster, stored)

    def _may_be_prologue(self, node: Node, cluster: Cluster) -> bool:
        """Whether a contraction may compute a large operand of it from arrays in memory, instead of reading it from there too."""
        value = node.output
        if value not in self.once or node.op.scalar_rule is None or not is_worth_streaming(node, self.limits):
            return False
        if cluster.cost + node.op.cost > self.limits.epilogue_cost:
            return False
        chain = Chain.behind(node, self._is_kept(cluster))
        return chain.complete and chain.open == 0

    def _is_prologue(self, node: Node, cluster: Cluster) -> bool:
        """Whether a node has joined the contraction that reads its result."""
        return node.output in self.once and cluster.kind == "contraction" and node is not cluster.root

    def _is_legal(self, node: Node, cluster: Cluster, stored: bool) -> bool:
        value = node.output
        op = node.op
        if cluster.cost + op.cost > self.limits.cluster_cost:
            return self._refuse(node, "the kernel would become too long")
        accesses = cluster.accesses.get(value)
        if stored and not (cluster.is_full(value) or self._is_of_rows(node, cluster)):
            return self._refuse(node, "it is needed in memory in another shape than the kernel's results")
        if op.reduction is not None or op.contract_rule is not None:
            return self._may_join_reduction(node, cluster, stored)
        if value in self.scattered and recompute_cost(node) > self.limits.recompute:
            return self._refuse(node, "it is read at scattered places and costs too much to compute again")
        if self._would_gather(node, cluster):
            return self._refuse(node, "it is turned around, and its reader would gather it element by element")
        if not stored and self._is_better_upstream(node, cluster):
            return self._refuse(node, "computing it where its inputs are at hand keeps one array instead of several")
        return not self._is_stretched(node, cluster, accesses)

    def _may_join_reduction(self, node: Node, cluster: Cluster, stored: bool) -> bool:
        if cluster.kind == "contraction":
            return self._refuse(node, "one kernel holds one contraction")
        turned = node.op.contract_rule is not None and cluster.is_turned(node.output)
        outer = len(cluster.domain) if turned else cluster.row_of(node.output)
        if outer is None:
            return self._refuse(node, "it is not read at one place along the kernel's leading axes")
        if node.op.contract_rule is not None:
            is_whole = turned or points(node.output.shape) == points(cluster.domain)
            if outer != len(cluster.domain) or cluster.outer is not None or not is_whole:
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

    def _is_better_upstream(self, node: Node, cluster: Cluster) -> bool:
        """True for a pointwise value that would make an epilogue fetch an array which is kept for no other reader, such as the
        slope of an activation: storing the value itself, where that array is computed, costs as much and saves the work."""
        value = node.output
        if node.op.scalar_rule is None or not cluster.is_full(value) or len(self.readers[value]) != 1:
            return False
        own = self.feeders.get(value, frozenset())
        if cluster.kind != "contraction" and not self._waiting_for(cluster) - own:
            return False
        chain = Chain.behind(node, self._is_kept(cluster))
        is_dear = chain.cost > self.limits.recompute
        return chain.complete and is_dear and chain.kept == 0 and chain.open == 1 and chain.shared > 0

    def _is_kept(self, *clusters: Cluster) -> Callable[[Value], bool]:
        """Whether a value will be in memory whatever becomes of these clusters."""

        def kept(value: Value) -> bool:
            if value.node.op.name in ("placeholder", "constant") or value in self.anchored or value in self.home:
                return True
            return any(one not in clusters for one in self.readers.get(value, ()))

        return kept

    def _may_duplicate(self, node: Node, clusters: Sequence[Cluster]) -> bool:
        op = node.op
        if op.reduction is not None or op.contract_rule is not None or op.random:
            return False
        value = node.output
        if value in self.views or any(cluster.kind == "single" for cluster in clusters):
            return self._is_free_view(node)
        if any(self._would_gather(node, cluster) for cluster in clusters):
            return False
        if op.index_map_rule is not None or not node.inputs or is_free(node):
            return True
        if value in self.scattered and recompute_cost(node) > 0:
            return False
        if recompute_cost(node) > self.limits.recompute or len(clusters) > self.limits.duplicates:
            return self._refuse(node, "several kernels read it and it costs too much to compute again")
        # Only from what is in memory anyway, so that chains stay short, and only where fewer arrays are read than a store costs.
        chain = Chain.behind(node, self._is_kept(*clusters))
        readers = len(clusters)
        is_cheap = chain.cost <= self.limits.recompute and chain.kept * readers <= chain.kept + readers + 1
        return chain.complete and chain.open == 0 and is_cheap

    def _would_gather(self, node: Node, cluster: Cluster) -> bool:
        """Whether a reader at computed places loses the neighbourhood of elements that a copy in order would keep."""
        value = node.output
        return value in self.scattered and moves_last_axis(node) and not is_larger(value, cluster)

    def _is_free_view(self, node: Node) -> bool:
        return node.op.index_map_rule is not None or is_free(node)

    def _refuse(self, node: Node, reason: str) -> bool:
        self.reasons[node] = reason
        return False


def _is_shareable(node: Node) -> bool:
    """Whether one computation may serve several kernels' readers: pointwise operators, reductions and contractions."""
    op = node.op
    return op.scalar_rule is not None or op.reduction is not None or op.contract_rule is not None
