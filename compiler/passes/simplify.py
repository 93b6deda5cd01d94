"""Local algebra: the declared rules of `passes/rules`, applied until none matches."""

from __future__ import annotations

from pierian.compiler.frozen import frozen
from pierian.compiler.graph.graph import Graph
from pierian.compiler.passes.base import bodies
from pierian.compiler.passes.rules import ALL
from pierian.compiler.rewrite.engine import Rewriter


@frozen
class Simplify:
    """Given: any graph. Result: no exact rule matches any more. Results keep every bit.

    before:  %b = negative(negative(%a));  %c = reshape(reshape(%b))
    after:   %c = reshape(%a)
    """

    name: str = "simplify"

    def run(self, graph: Graph) -> bool:
        changed = Rewriter(rule for rule in ALL if rule.exact).run(graph)
        return any([changed, *(self.run(body) for body in bodies(graph))])
