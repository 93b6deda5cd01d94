"""Small changes that passes and differentiation make to graphs and bodies."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pierian.compiler.graph.builder import Builder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value

# Nodes that stay although nobody reads them.
KEPT = ("placeholder", "variable_assign")


def remove_dead(graph: Graph, node: Node) -> None:
    """Take out a node nobody reads, and then whatever only it needed."""
    stack = [node]
    while stack:
        one = stack.pop()
        if one.graph is not graph or one.op.name in KEPT or any(value.uses for value in one.outputs):
            continue
        makers = [value.node for value in one.inputs]
        graph.remove(one)
        stack.extend(makers)


def sweep(graph: Graph) -> bool:
    """Take out all nodes that no output needs; True where there were any. The nodes must be in order."""
    changed = False
    for node in reversed(list(graph.nodes)):
        if node.op.name not in KEPT and not any(value.uses for value in node.outputs):
            graph.remove(node)
            changed = True
    return changed


def drop_inputs(body: Graph, positions: Collection[int]) -> None:
    """Take out parameters of a body that nothing in it reads."""
    for position in positions:
        body.remove(body.inputs[position].node)
    body.inputs[:] = [value for position, value in enumerate(body.inputs) if position not in positions]


def set_results(body: Graph, values: Sequence[Value]) -> None:
    """Say what a body hands out; its results have names by position."""
    body.set_outputs(values, [f"r{i}" for i in range(len(values))])


def inline(b: Builder, body: Graph, arguments: Sequence[Value]) -> list[Value]:
    """The results of a closed graph for these arguments, computed by copies of its nodes made with `b`."""
    mapping: dict[Value, Value] = dict(zip(body.inputs, arguments, strict=True))
    for node in body.nodes:
        if node.op.name == "placeholder":
            continue
        if node.op.name == "constant":
            made: Any = b.constant(node.attributes["value"])
        else:
            inner = tuple(one.clone(None, one.value_type) for one in node.bodies)
            made = b.apply(node.op, [mapping[value] for value in node.inputs], dict(node.attributes), inner)
        mapping.update(zip(node.outputs, results(made), strict=True))
    return [mapping[value] for value in body.outputs]


def results(made: Any) -> list[Value]:
    """What a builder returned for a node, as a list."""
    return list(made) if isinstance(made, tuple) else [made]
