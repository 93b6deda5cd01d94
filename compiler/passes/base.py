"""What a pass is: a value with a name and options, run on the pipeline's own copy of a graph."""

from __future__ import annotations

from typing import Protocol

from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node


class Pass(Protocol):
    """One step of the pipeline. Implementations are frozen dataclasses whose fields are the pass's options."""

    @property
    def name(self) -> str:
        """The word that `--after` and `disable` take."""

    def run(self, graph: Graph) -> bool:
        """Change the graph in place; True where anything changed. Nested bodies are changed too."""


def bodies(graph: Graph) -> list[Graph]:
    """The bodies of a graph's nodes."""
    return [body for node in graph.nodes for body in node.bodies]


def remove_dead(graph: Graph, node: Node) -> None:
    """Take out a node nobody reads, and then whatever only it needed."""
    stack = [node]
    while stack:
        one = stack.pop()
        if one.graph is not graph or any(value.uses for value in one.outputs) or one.op.name == "placeholder":
            continue
        makers = [value.node for value in one.inputs]
        graph.remove(one)
        stack.extend(makers)
