"""Paddings of one value that are parts of a larger one are read out of that."""

from __future__ import annotations

from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node
from pierian.compiler.passes.base import bodies


@frozen
class SharePads:
    """Given: any graph. Result: of the paddings of a value with the same number, those that lie within another one are slices of it.

    before:  %a = pad(%x, before=(0,), after=(1,));  %b = pad(%x, before=(1,), after=(1,))
    after:   %b = pad(%x, before=(1,), after=(1,));  %a = slice(%b, begin=(1,), ...)
    """

    name: str = "share-pads"

    def run(self, graph: Graph) -> bool:
        builder = GraphBuilder(graph)
        changed = False
        for node in [node for node in graph.nodes if node.op.name == "pad"]:
            whole = next((one for one in node.inputs[0].uses if _holds(one, node)), None)
            if whole is None:
                continue
            builder.location = node.location
            begin = [b - a for b, a in zip(whole.attributes["before"], node.attributes["before"], strict=True)]
            end = [first + size for first, size in zip(begin, node.output.shape, strict=True)]
            part = builder.slice(whole.output, begin=begin, end=end, step=(1,) * len(begin))
            graph.replace_uses(node.output, builder.as_value(part))
            graph.remove(node)
            changed = True
        if changed:
            graph.sort()
        return any([changed, *(self.run(body) for body in bodies(graph))])


def _holds(whole: Node, part: Node) -> bool:
    """Whether a node is another padding of the same value that has all that is in `part`."""
    if whole is part or whole.op.name != "pad" or whole.attributes["value"] != part.attributes["value"]:
        return False
    sides = ("before", "after")
    pairs = [pair for side in sides for pair in zip(whole.attributes[side], part.attributes[side], strict=True)]
    return all(isinstance(more, int) and isinstance(less, int) and more >= less for more, less in pairs)
