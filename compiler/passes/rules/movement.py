"""Rules of movement."""

from __future__ import annotations

from typing import Any

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.passes.rules.matching import is_only_use, keeps_shape, made_by
from pierian.compiler.rewrite.engine import Rule


def _nothing(b: Any, node: Node) -> Value | None:
    """A movement that changes no shape moves nothing (reshape, broadcast, squeeze, expand)."""
    return node.inputs[0] if keeps_shape(node, node.inputs[0]) else None


def _unmoved(b: Any, node: Node) -> Value | None:
    axes = node.attributes["axes"]
    return node.inputs[0] if axes == tuple(range(len(axes))) else None


def _moves_ones(b: Any, node: Node) -> Value | None:
    """Axes of size one have no order."""
    (x,) = node.inputs
    kept = [axis for axis in node.attributes["axes"] if x.shape[axis] != 1]
    return b.reshape(x, shape=node.output.shape) if kept == sorted(kept) else None


def _reshape_of(op: str) -> Any:
    """`reshape` of what has the same elements in the same order."""

    def apply(b: Any, node: Node) -> Value | None:
        inner = made_by(node.inputs[0], op)
        return b.reshape(inner.inputs[0], shape=node.attributes["shape"]) if inner is not None else None

    return apply


def _permute_of_permute(b: Any, node: Node) -> Value | None:
    inner = made_by(node.inputs[0], "permute_dims")
    if inner is None:
        return None
    first, second = inner.attributes["axes"], node.attributes["axes"]
    return b.permute_dims(inner.inputs[0], axes=tuple(first[axis] for axis in second))


def _broadcast_of_broadcast(b: Any, node: Node) -> Value | None:
    inner = made_by(node.inputs[0], "broadcast_to")
    return b.broadcast_to(inner.inputs[0], shape=node.attributes["shape"]) if inner is not None else None


def _inverse(op: str) -> Any:
    """`expand_dims` of `squeeze` along the same axes, and the other way round."""

    def apply(b: Any, node: Node) -> Value | None:
        inner = made_by(node.inputs[0], op)
        if inner is None or inner.attributes["axis"] != node.attributes["axis"]:
            return None
        return inner.inputs[0] if keeps_shape(node, inner.inputs[0]) else None

    return apply


def _transposed_operand(b: Any, node: Node) -> Value | None:
    """A matrix product reads a swapped last pair of axes in place."""
    inputs = list(node.inputs)
    attributes = dict(node.attributes)
    changed = False
    for position, flag in enumerate(("transpose_x", "transpose_y")):
        inner = made_by(inputs[position], "permute_dims")
        if inner is None:
            continue
        axes = inner.attributes["axes"]
        rank = len(axes)
        if axes == (*range(rank - 2), rank - 1, rank - 2):
            inputs[position] = inner.inputs[0]
            attributes[flag] = not attributes[flag]
            changed = True
    return b.apply(node.op, inputs, attributes) if changed else None


def _transposed_result(b: Any, node: Node) -> Value | None:
    """A matrix product that is only read with its last axes swapped is the product of the swapped matrices."""
    inner = made_by(node.inputs[0], "dot_general")
    axes = node.attributes["axes"]
    rank = len(axes)
    if inner is None or axes != (*range(rank - 2), rank - 1, rank - 2) or not is_only_use(node.inputs[0], node):
        return None
    x, y = inner.inputs
    swapped = {"transpose_x": not inner.attributes["transpose_y"], "transpose_y": not inner.attributes["transpose_x"]}
    return b.apply(inner.op, (y, x), swapped)


def _single(b: Any, node: Node) -> Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _no_padding(b: Any, node: Node) -> Value | None:
    return node.inputs[0] if not any((*node.attributes["before"], *node.attributes["after"])) else None


RULES = (
    *(Rule(op, "moves nothing", _nothing) for op in ("reshape", "broadcast_to", "squeeze", "expand_dims")),
    Rule("permute_dims", "unmoved", _unmoved),
    Rule("reshape", "reshape of reshape", _reshape_of("reshape")),
    Rule("reshape", "reshape of expand", _reshape_of("expand_dims")),
    Rule("permute_dims", "permute of permute", _permute_of_permute),
    Rule("permute_dims", "moves ones", _moves_ones),
    Rule("broadcast_to", "broadcast of broadcast", _broadcast_of_broadcast),
    Rule("expand_dims", "expand of squeeze", _inverse("squeeze")),
    Rule("squeeze", "squeeze of expand", _inverse("expand_dims")),
    Rule("pad", "no padding", _no_padding),
    Rule("concat", "concat of one", _single),
    Rule("dot_general", "transposed operand", _transposed_operand),
    Rule("permute_dims", "transposed result", _transposed_result),
)
