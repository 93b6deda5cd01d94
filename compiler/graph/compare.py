"""Whether two graphs are the same."""

from __future__ import annotations

from typing import Any

from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value


def graphs_equal(first: Graph, second: Graph) -> bool:
    """True where names, operators, wiring, attributes, types, bodies, variables and outputs agree; locations may differ."""
    return picture(first) == picture(second)


def picture(graph: Graph) -> Any:
    """Everything about a graph but locations, as nested tuples that compare by value."""
    numbers: dict[Value, int] = {}
    nodes = []
    for node in graph.nodes:
        for value in node.outputs:
            numbers[value] = len(numbers)
        nodes.append(
            (
                node.name,
                node.op.name,
                tuple(numbers[value] for value in node.inputs),
                tuple((name, _typed(value)) for name, value in node.attributes.items()),
                tuple(value.type for value in node.outputs),
                tuple(picture(body) for body in node.bodies),
            )
        )
    variables = [
        (v.name, v.type, v.initial, v.trainable, None if v.update is None else numbers[v.update])
        for v in graph.variables.values()
    ]
    return (
        graph.name,
        graph.seed,
        tuple(nodes),
        tuple(numbers[value] for value in graph.inputs),
        tuple(numbers[value] for value in graph.outputs),
        tuple(graph.output_names),
        tuple(variables),
    )


def _typed(value: Any) -> Any:
    """A value with its kind, so that 1, 1.0 and True differ, and floats compare by bits."""
    if isinstance(value, tuple):
        return tuple(_typed(one) for one in value)
    return (type(value).__name__, value.hex() if isinstance(value, float) else value)
