"""Notes that lowering takes for people: which operators became which launch, and why not more of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pierian.compiler.dim import Dim
from pierian.compiler.fusion.cluster import Cluster, Fusion
from pierian.compiler.graph.node import Node
from pierian.compiler.kernel.program import Launch


@dataclass(slots=True)
class Record:
    """Filled by `lower`, body by body.

    Attributes:
        clusters: for each launch, by identity, the operators that became it.
        refusals: for a node why it did not join the kernel that reads it.
        fusions: how each body was fused.
    """

    clusters: dict[int, Cluster] = field(default_factory=dict)
    refusals: dict[Node, str] = field(default_factory=dict)
    fusions: list[Fusion] = field(default_factory=list)

    def add(self, launches: list[Launch], cluster: Cluster) -> None:
        """Note what a cluster became."""
        for launch in launches:
            self.clusters[id(launch)] = cluster

    def add_fusion(self, fusion: Fusion) -> None:
        """Note how a body was fused, and why its clusters end where they do."""
        self.fusions.append(fusion)
        self.refusals.update(fusion.reasons)

    def traffic(self) -> dict[int, tuple[Dim, Dim]]:
        """For each cluster, by identity, the bytes that it reads and writes by the model that fusion decides by."""
        return {id(cluster): fusion.traffic(cluster) for fusion in self.fusions for cluster in fusion.clusters}
