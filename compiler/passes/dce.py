"""Dead code: what no output needs is taken out."""

from __future__ import annotations

from pierian.compiler.frozen import frozen
from pierian.compiler.graph.graph import Graph
from pierian.compiler.passes.base import bodies


@frozen
class DeadCode:
    """Given: any graph. Result: every node but the inputs is needed by an output or assigns a variable.

    before:  %a = exp(%x);  %b = log(%x);  return %b
    after:   %b = log(%x);  return %b
    """

    name: str = "dce"

    def run(self, graph: Graph) -> bool:
        changed = False
        for node in reversed(list(graph.nodes)):
            kept = node.op.name in ("placeholder", "variable_assign") or any(value.uses for value in node.outputs)
            if not kept:
                graph.remove(node)
                changed = True
        return any([changed, *(self.run(body) for body in bodies(graph))])
