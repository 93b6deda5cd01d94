"""Rules of reductions."""

from __future__ import annotations

from typing import Any

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.rewrite.engine import Rule

_UNCHANGED = ("sum", "prod", "max", "min", "any", "all")


def _single_element(b: Any, node: Node) -> Value | None:
    """Over axes of size 1 a reduction leaves its elements as they are."""
    x = node.inputs[0]
    axis = node.attributes["axis"]
    if any(x.shape[i] != 1 for i in axis):
        return None
    return x if node.attributes["keepdims"] or not axis else b.squeeze(x, axis=axis)


RULES = tuple(Rule(op, "single element", _single_element) for op in _UNCHANGED)
