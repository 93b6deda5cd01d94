"""Pointwise chains: what stands between a value and the arrays it is computed from."""

from __future__ import annotations

from collections.abc import Callable

from pierian.compiler.frozen import frozen
from pierian.compiler.fusion.cost import is_free
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.shape import Shape

# Nodes of a chain that are looked at: bounds the cost of a question about one node.
_LOOKED_AT = 40


@frozen
class Chain:
    """The pointwise operators behind a node, as large as its result, back to values that are kept in memory.

    Attributes:
        cost: scalar operations per element, the node's own included.
        kept: arrays as large as the result that it starts from and that are kept anyway.
        open: the other large values it starts from: results of contractions, reductions, movements.
        shared: values inside the chain, or that it starts from, with readers outside the chain.
        complete: whether all of it was looked at.
    """

    cost: int
    kept: int
    open: int
    shared: int
    complete: bool

    @staticmethod
    def behind(node: Node, is_kept: Callable[[Value], bool]) -> Chain:
        """The chain behind a node; `is_kept` says where to stop."""
        shape = node.output.shape
        members: dict[Node, None] = {node: None}
        kept: dict[Value, None] = {}
        ends: dict[Value, None] = {}
        cost = 0
        stack = [node]
        while stack and len(members) <= _LOOKED_AT:
            one = stack.pop()
            cost += one.op.cost
            for value in one.inputs:
                small = value.type.size == 1 or is_smaller(value, shape)
                if small or is_free(value.node) or value.node in members:
                    continue
                if is_kept(value):
                    kept[value] = None
                elif value.node.op.scalar_rule is not None:
                    members[value.node] = None
                    stack.append(value.node)
                else:
                    ends[value] = None
        inner = [one.output for one in members if one is not node]
        shared = [value for value in (*inner, *ends) if any(user not in members for user in value.uses)]
        return Chain(cost, len(kept), len(ends), len(shared), not stack)


def is_smaller(value: Value, shape: Shape) -> bool:
    """Whether a value is stretched when it is read at all points of `shape`."""
    if len(value.shape) < len(shape):
        return True
    return any(dim == 1 and wanted != 1 for dim, wanted in zip(value.shape, shape, strict=False))


def feeders(graph: Graph) -> dict[Value, frozenset[Node]]:
    """For values that are pointwise work on the result of a contraction, and as large: which one; two at most are told apart."""
    found: dict[Value, frozenset[Node]] = {}
    for node in graph.nodes:
        op = node.op
        if op.contract_rule is not None:
            found[node.output] = frozenset((node,))
        elif op.scalar_rule is not None:
            nodes = [
                one
                for value in node.inputs
                if value in found and not is_smaller(value, node.output.shape)
                for one in found[value]
            ]
            if nodes:
                found[node.output] = frozenset(list(dict.fromkeys(nodes))[:2])
    return found


def anchored(graph: Graph) -> set[Value]:
    """Values that have to be in memory: results of the graph, and what contractions, kernels of their own and control flow read,
    there or through movements."""
    found = set(graph.outputs)
    for node in reversed(list(graph.nodes)):
        op = node.op
        whole = op.contract_rule is not None or op.kernel_rule is not None or op.has_bodies
        if whole or ((op.index_map_rule is not None or op.alias) and node.output in found):
            found.update(node.inputs)
    return found
