"""Notes that lowering takes for people: which operators became which launch, and why not more of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pierian.compiler.fusion.cluster import Cluster, Fusion
from pierian.compiler.graph.node import Node
from pierian.compiler.kernel.program import Launch


@dataclass(slots=True)
class Record:
    """Filled by `lower`, body by body.

    Attributes:
        clusters: for each launch, by identity, the operators that became it.
        refusals: for a node why it did not join the kernel that reads it.
    """

    clusters: dict[int, Cluster] = field(default_factory=dict)
    refusals: dict[Node, str] = field(default_factory=dict)

    def add(self, launches: list[Launch], cluster: Cluster) -> None:
        """Note what a cluster became."""
        for launch in launches:
            self.clusters[id(launch)] = cluster

    def add_refusals(self, fusion: Fusion) -> None:
        """Note why the clusters of a body end where they do."""
        self.refusals.update(fusion.reasons)
