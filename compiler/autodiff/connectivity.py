"""Why no gradient reaches a value: no path, or a node on it that stops derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.location import describe


def explain_unconnected(
    ys: Sequence[Value], x: Value, producer: Callable[[Value], Node | None], stopped: Sequence[tuple[Node, Value]]
) -> str:
    """One sentence: where the path from `ys` back to `x` breaks. `stopped` are the nodes that gradients reached, each with an
    input it passed nothing on to."""
    depending = _depending(ys, x, producer)
    if not any(y in depending for y in ys):
        return f"{', '.join(y.name for y in ys)} does not depend on it"
    for node, value in stopped:
        if value in depending:
            place = describe(node.location)
            return f"{node.op.name} {node.name!r} passes no derivative on" + (f" (at {place})" if place else "")
    return "the path leads through values that are not floats"


def _depending(ys: Sequence[Value], x: Value, producer: Callable[[Value], Node | None]) -> set[Value]:
    """The values between x and ys that depend on x, x among them."""
    found = {x}
    done: set[Node] = set()
    stack = [(node, False) for node in map(producer, ys) if node is not None]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            if any(value in found for value in node.inputs):
                found.update(node.outputs)
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack.extend((maker, False) for maker in map(producer, node.inputs) if maker is not None)
    return found
