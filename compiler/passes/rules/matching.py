"""Small questions that rules ask about values."""

from __future__ import annotations

from typing import Any

from pierian.compiler.graph.node import Node, Value


def constant_value(value: Value) -> Any:
    """The number of a constant with one element or all elements equal; None for anything else."""
    node = value.node
    if node.op.name == "constant":
        array = node.attributes["value"].array
        return array.reshape(-1)[0].item() if array.size == 1 else None
    if node.op.name in ("zeros", "ones"):
        return 0 if node.op.name == "zeros" else 1
    if node.op.name == "full":
        return node.attributes["value"]
    return None


def made_by(value: Value, op: str) -> Node | None:
    """The node that makes a value, where it has that operator."""
    return value.node if value.node.op.name == op else None


def keeps_shape(node: Node, value: Value) -> bool:
    """Whether `value` has the type of the node's result, so that it can stand in for it."""
    return value.type == node.output.type


def is_only_use(value: Value, node: Node) -> bool:
    """Whether nothing but one input of `node` reads a value."""
    return value.uses == {node: 1} and (node.graph is None or value not in node.graph.outputs)
