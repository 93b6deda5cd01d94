"""Images with channels first are computed with channels last wherever what surrounds them is."""

from __future__ import annotations

from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.convolution import to_first, to_last
from pierian.compiler.passes.base import bodies
from pierian.compiler.passes.turning import Last, Turning, is_turn


@frozen
class ChannelsLast:
    """Given: any graph of primitives. Result: between two operators that work with channels last, nothing is computed with channels
    first. Convolutions do, and turn an image whose channels stand second around before and after (`permute_dims`); what lies between
    two of them, such as bias, activation, residual sum, pooling and products over channels alone, is written for the turned image,
    so that the two turns cancel. Sums that leave no order to restore are taken of turned images too. No turn is added but of small
    operands.

    before:  %a = permute_dims(%conv, (0, 3, 1, 2));  %b = maximum(%a, %zero);  %c = permute_dims(%b, (0, 2, 3, 1))
    after:   %c = maximum(%conv, %zero)
    """

    name: str = "channels-last"

    def run(self, graph: Graph) -> bool:
        changed = any(is_turn(node, to_first) for node in graph.nodes) and _Images(graph).turn()
        return any([changed, *(self.run(body) for body in bodies(graph))])


class _Images:
    """The images of a graph that are turned to channels first somewhere, and what is computed from them.

    Attributes:
        known: the nodes before anything was written.
        replaced: those of them whose results have been written without a turn.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = GraphBuilder(graph)
        self.turning = Turning(self.builder)
        self.known = list(graph.nodes)
        self.replaced: set[Node] = set()

    def turn(self) -> bool:
        """Write what can be had with channels last so, let those who want it so read it, and take out what nobody reads."""
        changed = False
        for node in self.known:
            self.builder.location = node.location
            result = self._result(node)
            if result is not None:
                self.graph.replace_uses(node.output, result)
                self.replaced.add(node)
                changed = True
            elif is_turn(node, to_first):
                self.turning.last[node.output] = Last(node.inputs[0], merged=False)
            elif (found := self.turning.turned(node)) is not None:
                self.turning.last[node.output] = found
                changed |= found.wanted
        self._drop_unread()
        self._turn_back()
        self.graph.sort()
        return changed

    def _result(self, node: Node) -> Value | None:
        """The very result of a node, where channels last have it without a turn."""
        if not is_turn(node, to_last):
            return self.turning.settled(node)
        last = self.turning.last.get(node.inputs[0])
        return last.value if last is not None and not last.merged else None

    def _drop_unread(self) -> None:
        """Take out what was written and nobody wants."""
        wanted = {found.value for found in self.turning.last.values() if found.wanted}
        known = set(self.known)
        for node in reversed([node for node in self.graph.nodes if node not in known]):
            if not node.output.uses and node.output not in wanted:
                self.graph.remove(node)

    def _turn_back(self) -> None:
        """What is still read with channels first is turned back, where it is computed with channels last, so that nothing is
        computed twice."""
        for node in reversed(self.known):
            found = self.turning.last.get(node.outputs[0]) if node.outputs else None
            if found is not None and self._is_computed(found) and node.output.uses and not is_turn(node, to_first):
                self.builder.location = node.location
                self.graph.replace_uses(node.output, self.turning.back(node.output))
            if (found is not None or node in self.replaced) and not node.output.uses:
                self.graph.remove(node)

    def _is_computed(self, found: Last) -> bool:
        """Whether what was written for channels last is still there."""
        return found.value.node.graph is self.graph
