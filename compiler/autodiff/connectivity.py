"""Why no gradient reaches a value: no path, or a node on it that stops derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.location import describe


def explain_unconnected(ys: Sequence[Value], x: Value, producer: Callable[[Value], Node | None]) -> str:
    """One sentence: where the path from `ys` back to `x` breaks."""
    seen: set[Node] = set()
    stack = [node for node in map(producer, ys) if node is not None]
    users: list[Node] = []
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if any(x is value for value in node.inputs):
            users.append(node)
        stack.extend(maker for maker in map(producer, node.inputs) if maker is not None)
    if any(x is y for y in ys):
        return "it is one of the ys itself"
    if not users:
        return f"{', '.join(y.name for y in ys)} does not depend on it"
    blocking = users[0]
    place = describe(blocking.location)
    return f"{blocking.op.name} {blocking.name!r} has no derivative" + (f" (at {place})" if place else "")
