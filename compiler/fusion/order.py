"""Which cluster reads what another one stores: the graph of clusters, kept free of cycles while it grows and merges."""

from __future__ import annotations

from pierian.compiler.fusion.cluster import Cluster

# Edges followed before two clusters count as dependent: keeps every question cheap in graphs of any size.
_SEARCH = 200


class ClusterGraph:
    """Clusters in order of creation, and who needs whom.

    Attributes:
        clusters: all of them, first created first.
    """

    def __init__(self) -> None:
        self.clusters: dict[Cluster, None] = {}
        self._needs: dict[Cluster, dict[Cluster, None]] = {}
        self._needed_by: dict[Cluster, dict[Cluster, None]] = {}

    def add(self, cluster: Cluster) -> None:
        self.clusters[cluster] = None
        self._needs[cluster] = {}
        self._needed_by[cluster] = {}

    def connect(self, reader: Cluster, source: Cluster) -> None:
        """`reader` reads a value that `source` stores."""
        if reader is not source:
            self._needs[reader][source] = None
            self._needed_by[source][reader] = None

    def may_depend(self, reader: Cluster, source: Cluster) -> bool:
        """Whether `reader` needs `source`, directly or through others; True also where finding out takes too long."""
        seen = {reader}
        stack = [reader]
        steps = 0
        while stack:
            for needed in self._needs[stack.pop()]:
                steps += 1
                if needed is source or steps > _SEARCH:
                    return True
                if needed not in seen:
                    seen.add(needed)
                    stack.append(needed)
        return False

    def merge(self, into: Cluster, other: Cluster) -> None:
        """`into` takes the place of `other`; neither may depend on the other."""
        for needed in self._needs.pop(other):
            del self._needed_by[needed][other]
            self.connect(into, needed)
        for reader in self._needed_by.pop(other):
            del self._needs[reader][other]
            self.connect(reader, into)
        del self.clusters[other]

    def ordered(self) -> list[Cluster]:
        """Clusters in an order in which they can run: those created later come earlier (fusion goes from the outputs to the
        inputs), made exact by a depth-first walk along what each needs."""
        order: dict[Cluster, None] = {}
        for root in reversed(self.clusters):
            stack = [(root, iter(self._needs[root]))]
            entered = {root}
            while stack:
                cluster, remaining = stack[-1]
                if cluster in order:
                    stack.pop()
                    continue
                for needed in remaining:
                    if needed not in order and needed not in entered:
                        entered.add(needed)
                        stack.append((needed, iter(self._needs[needed])))
                        break
                else:
                    order[cluster] = None
                    stack.pop()
        return list(order)
