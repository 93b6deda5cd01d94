"""What the way forward keeps for the way back: values the gradient reads that cost more to compute again than to store."""

from __future__ import annotations

from collections.abc import Collection

from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value

# Scalar operations per element up to which a value is computed again: a kernel that waits for memory does that many while it
# stores and loads one more element.
RECOMPUTED = 48
_ALWAYS_KEPT = RECOMPUTED + 1


def choose_kept(body: Graph, needed: Collection[Value]) -> list[Value]:
    """Values of a body to keep so that those in `needed` follow from them and the body's inputs in few operations.

    Matrix products, reductions, nested control flow and random numbers are never done a second time.
    """
    kept: dict[Value, None] = {}
    costs: dict[Value, int] = {}
    for node in body.nodes:
        for value in node.outputs:
            costs[value] = _cost(node, costs)
            if value in needed and costs[value] > RECOMPUTED:
                source = _unmoved(value)
                kept[source] = None
                costs[source] = costs[value] = 0
    return list(kept)


def _cost(node: Node, costs: dict[Value, int]) -> int:
    """Operations per element for a node's results, given what is kept already; a shared part counts for each use."""
    op = node.op
    if op.name in ("placeholder", "constant") or not node.inputs:
        return _ALWAYS_KEPT if op.random else 0
    if op.scalar_rule is None and op.index_map_rule is None and not op.alias:
        return _ALWAYS_KEPT
    own = op.cost if op.scalar_rule is not None else 0
    return min(own + sum(costs[value] for value in node.inputs), _ALWAYS_KEPT)


def _unmoved(value: Value) -> Value:
    """What a value is a view of, where that has no more elements: a broadcast is kept as what it repeats."""
    while value.node.op.index_map_rule is not None or value.node.op.alias:
        source = value.node.inputs[0]
        if source.node.op.name == "placeholder" or not _is_at_most(source, value):
            break
        value = source
    return value


def _is_at_most(source: Value, value: Value) -> bool:
    first, second = source.type.size, value.type.size
    return first == second or (isinstance(first, int) and isinstance(second, int) and first < second)
