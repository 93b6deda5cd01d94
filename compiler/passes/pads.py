"""Paddings: one that lies within another is read out of it, and one around very short rows walks them as long ones."""

from __future__ import annotations

from collections.abc import Callable

from pierian.compiler.dim import product
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.passes.base import bodies

# Bytes of rows that are worth a vector of their own.
LONG_ROW = 64


@frozen
class SharePads:
    """Given: any graph. Result: of the paddings of a value with the same number, those that lie within another one are slices of it.

    before:  %a = pad(%x, before=(0,), after=(1,));  %b = pad(%x, before=(1,), after=(1,))
    after:   %b = pad(%x, before=(1,), after=(1,));  %a = slice(%b, begin=(1,), ...)
    """

    name: str = "share-pads"

    def run(self, graph: Graph) -> bool:
        return _rewrite_pads(graph, _shared)


def _holds(whole: Node, part: Node) -> bool:
    """Whether a node is another padding of the same value that has all that is in `part`."""
    if whole is part or whole.op.name != "pad" or whole.attributes["value"] != part.attributes["value"]:
        return False
    sides = ("before", "after")
    pairs = [pair for side in sides for pair in zip(whole.attributes[side], part.attributes[side], strict=True)]
    return all(isinstance(more, int) and isinstance(less, int) and more >= less for more, less in pairs)


@frozen
class MergePads:
    """Given: any graph. Result: the axes behind the last one that is padded are part of it, where they are but a few elements, such
    as the colours of an image: vectors along the padded axis then are whole ones.

    before:  %b = pad(%x, before=(0, 1, 1, 0), after=(0, 1, 1, 0))          of %x: [n, 32, 32, 3]
    after:   %f = reshape(%x, [n, 32, 96]);  %g = pad(%f, before=(0, 1, 3), after=(0, 1, 3));  %b = reshape(%g, [n, 34, 34, 3])
    """

    name: str = "merge-pads"

    def run(self, graph: Graph) -> bool:
        return _rewrite_pads(graph, _merged)


def _rewrite_pads(graph: Graph, rewrite: Callable[[GraphBuilder, Node], Value | None]) -> bool:
    """Paddings replaced by what `rewrite` gives for them, where it gives something; whether it did."""
    builder = GraphBuilder(graph)
    changed = False
    for node in [node for node in graph.nodes if node.op.name == "pad"]:
        builder.location = node.location
        found = rewrite(builder, node)
        if found is not None:
            graph.replace_uses(node.output, found)
            graph.remove(node)
            changed = True
    if changed:
        graph.sort()
    return any([changed, *(_rewrite_pads(body, rewrite) for body in bodies(graph))])


def _shared(b: GraphBuilder, node: Node) -> Value | None:
    """The padding as a part of another one of the same value that holds it."""
    whole = next((one for one in node.inputs[0].uses if _holds(one, node)), None)
    if whole is None:
        return None
    begin = [more - less for more, less in zip(whole.attributes["before"], node.attributes["before"], strict=True)]
    end = [first + size for first, size in zip(begin, node.output.shape, strict=True)]
    return b.as_value(b.slice(whole.output, begin=begin, end=end, step=(1,) * len(begin)))


def _merged(b: GraphBuilder, node: Node) -> Value | None:
    """The padding with few elements behind its last axis as one of an array whose last axis has them."""
    (x,) = node.inputs
    before, after = node.attributes["before"], node.attributes["after"]
    axis = max((i for i in range(x.type.rank) if not before[i] == after[i] == 0), default=-1)
    row = product(x.shape[axis + 1 :])
    if (
        axis < 0
        or not isinstance(row, int)
        or row < 2
        or row * x.dtype.itemsize >= LONG_ROW
        or not _is_read_in_order(x)
    ):
        return None
    flat = b.reshape(x, (*x.shape[:axis], x.shape[axis] * row))
    first, last = ((*side[:axis], side[axis] * row) for side in (before, after))
    padded = b.pad(flat, before=first, after=last, value=node.attributes["value"])
    return b.as_value(b.reshape(padded, node.output.shape))


def _is_read_in_order(value: Value) -> bool:
    """Whether a value, with whatever is computed on the way, is read element by element in the order it has: it is an array, or
    pointwise work on such arrays and on single numbers."""
    shape, pending, seen = value.shape, [value], set()
    while pending:
        one = pending.pop()
        node = one.node
        if node in seen or all(dim == 1 for dim in one.shape):
            continue
        seen.add(node)
        if one.shape != shape:
            return False
        if node.op.scalar_rule is not None:
            pending += node.inputs
        elif node.inputs and node.op.contract_rule is None:
            return False
    return True
