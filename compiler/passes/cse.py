"""Common subexpressions: of nodes that compute the same, one is left."""

from __future__ import annotations

from typing import Any

from pierian.compiler.frozen import frozen
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.passes.base import bodies


@frozen
class CommonSubexpressions:
    """Given: any graph. Result: no two nodes have one operator, the same inputs and equal attributes.

    before:  %a = exp(%x);  %b = exp(%x);  %c = add(%a, %b)
    after:   %a = exp(%x);  %c = add(%a, %a)
    """

    name: str = "cse"

    def run(self, graph: Graph) -> bool:
        changed = False
        seen: dict[Any, Node] = {}
        for node in list(graph.nodes):
            if node.op.stateful or node.op.random or node.bodies:
                continue
            key = (node.op.name, self._inputs(node), tuple(sorted(node.attributes.items(), key=lambda item: item[0])))
            first = seen.setdefault(key, node)
            if first is not node:
                for old, new in zip(node.outputs, first.outputs, strict=True):
                    graph.replace_uses(old, new)
                graph.remove(node)
                changed = True
        return any([changed, *(self.run(body) for body in bodies(graph))])

    def _inputs(self, node: Node) -> tuple[Value, ...]:
        if node.op.commutative and len(node.inputs) == 2:
            return tuple(sorted(node.inputs, key=id))
        return node.inputs
