"""The builder that rules and passes make nodes with: it remembers what is new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.graph.operator import Operator
from pierian.compiler.location import Location
from pierian.compiler.shape import TensorType


class RewriteBuilder(GraphBuilder):
    """Adds nodes at the end of a graph that is being changed.

    After the changes `graph.sort()` brings them into place. New nodes take `location`, which whoever changes the graph
    sets to that of what is replaced.

    Attributes:
        fresh: the nodes made since `take_fresh`.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.fresh: list[Node] = []

    def insert(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        types: Sequence[TensorType],
        bodies: Sequence[Graph],
        name: str | None,
        location: Location | None,
    ) -> Node:
        node = super().insert(op, inputs, attributes, types, bodies, name, location)
        self.fresh.append(node)
        return node

    def take_fresh(self) -> list[Node]:
        """The new nodes, in order; the list starts over."""
        taken, self.fresh = self.fresh, []
        return taken

    def replace(self, node: Node, values: Sequence[Value]) -> None:
        """Let everybody read `values` instead of the node's outputs. The first value takes the node's name if it is new."""
        for old, new in zip(node.outputs, values, strict=True):
            self.graph.replace_uses(old, new)
        if values and values[0].index == 0 and values[0].node in self.fresh:
            maker = values[0].node
            maker.name, node.name = node.name, maker.name
