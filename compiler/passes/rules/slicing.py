"""Rules of slices: only what is wanted is computed. They cut off whole ends; one with steps stays where it is."""

from __future__ import annotations

from typing import Any

from pierian.compiler.dim import Dim
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.joining import residues, share
from pierian.compiler.passes.rules.matching import is_only_use, keeps_shape, made_by
from pierian.compiler.rewrite.engine import Rule


def _whole(b: Any, node: Node) -> Value | None:
    whole = _is_plain(node) and keeps_shape(node, node.inputs[0])
    return node.inputs[0] if whole and all(first == 0 for first in node.attributes["begin"]) else None


def _is_plain(node: Node) -> bool:
    return all(step == 1 for step in node.attributes["step"])


def _only_cut(node: Node, op: str) -> Node | None:
    """The node of operator `op` of whose result nobody wants more than a slice has."""
    inner = made_by(node.inputs[0], op)
    return inner if inner is not None and _is_plain(node) and is_only_use(node.inputs[0], node) else None


def _cut(b: Any, x: Value, begin: list[Dim], shape: list[Dim]) -> Value:
    end = tuple(first + size for first, size in zip(begin, shape, strict=True))
    result: Value = b.slice(x, begin=tuple(begin), end=end, step=(1,) * len(begin))
    return result


def _slice_of_slice(b: Any, node: Node) -> Value | None:
    inner = made_by(node.inputs[0], "slice")
    if inner is None or not _is_plain(node) or not _is_plain(inner):
        return None
    begin = [one + two for one, two in zip(inner.attributes["begin"], node.attributes["begin"], strict=True)]
    return _cut(b, inner.inputs[0], begin, list(node.output.shape))


def _slice_of_pad(b: Any, node: Node) -> Value | None:
    """What is cut off of a padding is not put there, what is cut off of the array is cut before."""
    inner = _only_cut(node, "pad")
    if inner is None:
        return None
    (x,) = inner.inputs
    sides = []
    for axis, dim in enumerate(node.inputs[0].shape):
        front = inner.attributes["before"][axis] - node.attributes["begin"][axis]
        back = inner.attributes["after"][axis] - (dim - node.attributes["begin"][axis] - node.output.shape[axis])
        sides.append((front, back))
    if not all(isinstance(amount, int) for side in sides for amount in side):
        return None
    begin: list[Dim] = [max(-front, 0) for front, _ in sides]
    left = [dim - first - max(-back, 0) for dim, first, (_, back) in zip(x.shape, begin, sides, strict=True)]
    if any(isinstance(size, int) and size < 0 for size in left):
        return None  # only padding is wanted
    before, after = (tuple(max(side[i], 0) for side in sides) for i in (0, 1))
    result: Value = b.pad(_cut(b, x, begin, left), before=before, after=after, value=inner.attributes["value"])
    return result


def _slice_of_convolution(b: Any, node: Node) -> Value | None:
    """Windows that nobody wants are not seen, and what only they saw is cut off."""
    inner = _only_cut(node, "conv_general")
    if inner is None:
        return None
    x, filters = inner.inputs
    strides, dilations = inner.attributes["strides"], inner.attributes["dilations"]
    spatial = len(strides)
    shape, begin = node.output.shape, node.attributes["begin"]
    if shape[1 + spatial :] != node.inputs[0].shape[1 + spatial :]:
        return None
    if any(not isinstance(size, int) or size < 1 for size in shape[1 : 1 + spatial]):
        return None
    firsts, sizes = [begin[0]], [shape[0]]
    for axis, (stride, dilation) in enumerate(zip(strides, dilations, strict=True)):
        firsts.append(begin[1 + axis] * stride)
        sizes.append((shape[1 + axis] - 1) * stride + (filters.shape[axis] - 1) * dilation + 1)
    rest = x.shape[1 + spatial :]
    seen = _cut(b, x, [*firsts, *(0 for _ in rest)], [*sizes, *rest])
    return b.apply(inner.op, (seen, filters), inner.attributes)  # type: ignore[no-any-return]


def _slice_of_interleaved(b: Any, node: Node) -> Value | None:
    """A part is wanted from where its first element in the slice is; where that begins, turns begin."""
    inner = _only_cut(node, "interleave")
    if inner is None:
        return None
    counts, begin, shape = inner.attributes["counts"], node.attributes["begin"], node.output.shape
    if any(not isinstance(first, int) for first, count in zip(begin, counts, strict=True) if count > 1):
        return None
    known = dict(zip(residues(counts), inner.inputs, strict=True))
    parts = []
    for turn in residues(counts):
        moved = [residue + first for residue, first in zip(turn, begin, strict=True)]
        part = known[tuple(place % count if count > 1 else 0 for place, count in zip(moved, counts, strict=True))]
        firsts = [place // count if count > 1 else place for place, count in zip(moved, counts, strict=True)]
        sizes = [share(*axis) for axis in zip(shape, counts, turn, strict=True)]
        parts.append(_cut(b, part, firsts, sizes))
    return b.apply(inner.op, parts, {"shape": shape, "counts": counts})  # type: ignore[no-any-return]


RULES = (
    Rule("slice", "whole slice", _whole),
    Rule("slice", "slice of slice", _slice_of_slice),
    Rule("slice", "slice of pad", _slice_of_pad),
    Rule("slice", "slice of convolution", _slice_of_convolution),
    Rule("slice", "slice of interleaved", _slice_of_interleaved),
)
