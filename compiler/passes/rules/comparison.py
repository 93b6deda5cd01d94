"""Rules of choices."""

from __future__ import annotations

from typing import Any

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.passes.rules.matching import constant_value, keeps_shape
from pierian.compiler.rewrite.engine import Rule


def _known_condition(b: Any, node: Node) -> Value | None:
    condition, x, y = node.inputs
    known = constant_value(condition)
    if known is None:
        return None
    chosen = x if known else y
    return chosen if keeps_shape(node, chosen) else b.broadcast_to(chosen, shape=node.output.shape)


def _same_sides(b: Any, node: Node) -> Value | None:
    _, x, y = node.inputs
    return x if x is y and keeps_shape(node, x) else None


RULES = (Rule("where", "known condition", _known_condition), Rule("where", "same sides", _same_sides))
