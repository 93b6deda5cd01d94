"""The traffic model behind fusion decisions: when computing again is cheaper than memory, when rows are too long."""

from __future__ import annotations

from dataclasses import dataclass

from pierian.compiler.dim import product
from pierian.compiler.graph.node import Node
from pierian.compiler.shape import Shape


@dataclass(frozen=True, slots=True)
class Limits:
    """The numbers fusion decides by.

    Attributes:
        cluster_cost: scalar operations per point in one kernel; longer kernels spill registers and compile slowly.
        epilogue_cost: the same for what follows a contraction in its kernel.
        recompute: scalar operations worth computing again instead of a store and a load.
        duplicates: how many kernels may each compute a cheap value again.
        row: elements of a row that fits the second-level cache between passes.
        single_row: elements of a row walked by one thread when there are no outer axes to share out.
        fuse: False keeps every operator that is not an index map in a kernel of its own.
    """

    cluster_cost: int = 400
    epilogue_cost: int = 200
    recompute: int = 6
    duplicates: int = 4
    row: int = 1 << 16
    single_row: int = 1 << 13
    fuse: bool = True


def recompute_cost(node: Node) -> int:
    """Scalar operations to compute one element of a node's result again from its inputs."""
    return 0 if node.op.index_map_rule is not None else node.op.cost


def is_expensive_row(outer: Shape, row: Shape, limits: Limits) -> bool:
    """True where walking whole rows on one thread would cost more than writing the reduction to memory."""
    elements = product(row)
    limit = limits.row if any(dim != 1 for dim in outer) else limits.single_row
    if isinstance(elements, int):
        return elements > limit
    return all(dim == 1 for dim in outer)
