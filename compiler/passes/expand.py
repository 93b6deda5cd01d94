"""Compositions become the operators they are made of."""

from __future__ import annotations

from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.passes.base import bodies


@frozen
class Expand:
    """Given: any graph. Result: no node of a composite operator is left.

    before:  %y = softmax(%x) {axis = 1}
    after:   %m = max(%x) {axis = (1), keepdims = true};  %e = exp(subtract(%x, %m));  ...
    """

    name: str = "expand"

    def run(self, graph: Graph) -> bool:
        changed = False
        builder = GraphBuilder(graph)
        work = list(graph.nodes)
        while work:
            following = []
            for node in work:
                if not node.op.is_composite or node.graph is not graph:
                    continue
                before = len(graph.nodes)
                builder.location = node.location
                rule = node.op.expand_rule
                assert rule is not None
                result = rule(builder, *node.inputs, **node.attributes)
                results = result if isinstance(result, tuple) else (result,)
                for old, new in zip(node.outputs, results, strict=True):
                    graph.replace_uses(old, new)
                following += list(graph.nodes)[before:]
                graph.remove(node)
                changed = True
            work = following
        if changed:
            graph.sort()
        return any([changed, *(self.run(body) for body in bodies(graph))])
