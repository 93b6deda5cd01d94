"""What reaches a value from its readers, and the sum of it.

The gradient of a slice is a piece set into zeros. Pieces that do not overlap are put one behind the other rather than added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pierian.compiler.dim import Dim
from pierian.compiler.graph.node import Node, Value


class Totals:
    """The gradients that have reached each value so far."""

    def __init__(self, b: Any) -> None:
        self._b = b
        self._found: dict[Value, list[Value]] = {}

    def __contains__(self, value: Value) -> bool:
        return value in self._found

    def add(self, value: Value, gradient: Value) -> None:
        """Note what one reader passes on."""
        self._found.setdefault(value, []).append(gradient)

    def get(self, value: Value) -> Value | None:
        """The sum, made when first asked for; None where nothing has come."""
        found = self._found.get(value)
        if found is None:
            return None
        if len(found) > 1:
            found[:] = [_sum(self._b, found)]
        return found[0]

    def forget(self, value: Value) -> None:
        """Let a value begin again."""
        self._found.pop(value, None)


def _sum(b: Any, terms: Sequence[Value]) -> Value:
    whole = terms[0]
    pads: dict[int, list[Node]] = {}
    others: list[Value] = []
    for term in terms:
        axis = _padded_axis(term)
        if axis is None:
            others.append(term)
        else:
            pads.setdefault(axis, []).append(term.node)
    for axis, nodes in pads.items():
        joined = _joined(b, nodes, axis, whole) if len(nodes) > 1 else None
        others += [joined] if joined is not None else [node.output for node in nodes]
    total = others[0]
    for term in others[1:]:
        total = b.add(total, term)
    return total


def _padded_axis(value: Value) -> int | None:
    """The one axis along which a value is a piece between zeros, from a known place on."""
    node = value.node
    if node.op.name != "pad" or node.attributes["value"] != 0:
        return None
    axes = [i for i, (x, y) in enumerate(zip(node.inputs[0].shape, value.shape, strict=True)) if x != y]
    return axes[0] if len(axes) == 1 and isinstance(node.attributes["before"][axes[0]], int) else None


def _joined(b: Any, pads: Sequence[Node], axis: int, whole: Value) -> Value | None:
    """The pieces in their order with zeros between them; None where they overlap or that is not known."""
    parts: list[Value] = []
    end: Dim = 0

    def fill(size: Dim) -> None:
        shape = tuple(size if i == axis else dim for i, dim in enumerate(whole.shape))
        parts.append(b.zeros(shape=shape, dtype=whole.dtype))

    for pad in sorted(pads, key=lambda node: node.attributes["before"][axis]):
        begin = pad.attributes["before"][axis]
        if not isinstance(end, int) or begin < end:
            return None
        if begin > end:
            fill(begin - end)
        parts.append(pad.inputs[0])
        end = begin + parts[-1].shape[axis]
    if end != whole.shape[axis]:
        fill(whole.shape[axis] - end)
    return b.concat(parts, axis=axis)
