"""What operators do to images with channels first, written for the same images with channels last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pierian.compiler.dim import Dim, product
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.convolution import to_first, to_last

# An operand that is so many times smaller than the result is turned around for it.
SMALL = 8
# Operators whose results are computed anywhere at no cost, so that they need not be turned around.
FREE = ("broadcast_to", "zeros", "ones", "full", "random_uniform", "random_normal")


@frozen
class Last:
    """A value with channels last.

    Attributes:
        value: [batch, *rest, channels].
        merged: whether the value it stands for has batch and channels in one axis, as pooling has: [batch * channels, *rest, 1];
            otherwise that is [batch, channels, *rest].
        wanted: whether the operator that makes it is better off with channels last, even if what it makes has to be turned back.
    """

    value: Value
    merged: bool
    wanted: bool = False

    @property
    def batch(self) -> Dim:
        return self.value.shape[0]

    @property
    def channels(self) -> Dim:
        return self.value.shape[-1]

    def is_like(self, other: Last) -> bool:
        """Whether elements at the same place here are at the same place in what it stands for."""
        if self.merged and (self.batch, self.channels) != (other.batch, other.channels):
            return False
        return self.merged == other.merged

    def order(self, rank: int) -> tuple[int, ...]:
        """The axes of the value it stands for, in the order in which they are here."""
        return tuple(range(rank)) if self.merged else to_last(rank)


def is_turn(node: Node, axes: Callable[[int], tuple[int, ...]]) -> bool:
    """Whether a node is `permute_dims` by those axes."""
    if node.op.name != "permute_dims":
        return False
    order = node.attributes["axes"]
    return len(order) >= 3 and order == axes(len(order))


class Turning:
    """Writes nodes for channels last.

    Attributes:
        last: the values that are known with channels last.
        gradients: products written for both operands with channels last.
    """

    def __init__(self, b: GraphBuilder) -> None:
        self.b: Any = b
        self.last: dict[Value, Last] = {}
        self.gradients: set[Node] = set()

    def turned(self, node: Node) -> Last | None:
        """The node's result with channels last; None where that would have to be turned around for it."""
        rule = RULES.get(node.op.name)
        if rule is None and node.op.scalar_rule is not None:
            rule = Turning.of_all
        elif rule is None and node.op.reduction is not None:
            rule = _reduction
        if rule is None or not any(value in self.last for value in node.inputs):
            return None
        return rule(self, node)

    def settled(self, node: Node) -> Value | None:
        """The node's very result, computed from operands with channels last: where it has no order that would differ."""
        if node.op.reduction is not None:
            return _plain_reduction(self, node) or _long_product(self, node)
        if node.op.name == "dot_general":
            return _filter_gradient(self, node)
        return None

    def back(self, value: Value) -> Value:
        """A value that is known with channels last, in its own shape."""
        found = self.last[value]
        first = self.b.permute_dims(found.value, axes=to_first(found.value.type.rank))
        result: Value = self.b.reshape(first, shape=value.shape) if found.merged else first
        return result

    def operand(self, value: Value, like: Last, shape: Sequence[Dim]) -> Value | None:
        """An operand of a node whose other one is `like` and whose result has that shape; None where it costs something."""
        found, rank = self.last.get(value), len(shape)
        if found is not None and value.type.rank == rank and found.is_like(like):
            return found.value
        if all(dim == 1 for dim in value.shape):
            return value
        if like.merged and (value.type.rank < rank or value.shape[0] == 1):
            return value if value.shape[-1] == 1 else None
        turn = next((node for node in value.uses if is_turn(node, to_last)), None)
        if turn is not None and value.type.rank == rank and not like.merged:
            return turn.output
        if value.node.op.name not in FREE and not _is_small(value.shape, shape):
            return None
        if like.merged:
            value = self.b.reshape(value, shape=(like.batch, like.channels, *value.shape[1:-1]))
        elif value.type.rank < rank:
            value = self.b.expand_dims(value, axis=tuple(range(rank - value.type.rank)))
        result: Value = self.b.permute_dims(value, axes=to_last(value.type.rank))
        return result

    def like(self, node: Node) -> Last | None:
        """The first operand that is known and has the axes of the node's result."""
        rank = node.output.type.rank
        return next((self.last[value] for value in node.inputs if value in self.last and value.type.rank == rank), None)

    def of_one(self, node: Node, **changes: Any) -> Last:
        """The same operator on its one operand with channels last."""
        last = self.last[node.inputs[0]]
        return Last(self.b.apply(node.op, [last.value], {**node.attributes, **changes}), last.merged)

    def of_all(self, node: Node, **changes: Any) -> Last | None:
        """The same operator on its operands with channels last."""
        like = self.like(node)
        if like is None:
            return None
        found = [self.operand(value, like, node.output.shape) for value in node.inputs]
        values = [value for value in found if value is not None]
        if len(values) < len(found):
            return None
        return Last(self.b.apply(node.op, values, {**node.attributes, **changes}), like.merged)


def _is_small(operand: Sequence[Dim], result: Sequence[Dim]) -> bool:
    """Whether broadcasting makes a result many times as large as one of its operands."""
    aligned = (*(1,) * (len(result) - len(operand)), *operand)
    times = product([whole for part, whole in zip(aligned, result, strict=True) if part == 1])
    return not isinstance(times, int) or times >= SMALL


def _reduction(turning: Turning, node: Node) -> Last | None:
    """Along axes beside batch and channels; along any where they keep their places."""
    (x,) = node.inputs
    last, axes, rank = turning.last[x], node.attributes["axis"], x.type.rank
    outer = (0, rank - 1) if last.merged else (0, 1)
    if any(axis in outer for axis in axes) and (last.merged or not node.attributes["keepdims"]):
        return None
    return _reduced(turning, node)


def _reduced(turning: Turning, node: Node) -> Last:
    """The same reduction along the axes where they are with channels last."""
    (x,) = node.inputs
    order = turning.last[x].order(x.type.rank)
    return turning.of_one(node, axis=tuple(sorted(map(order.index, node.attributes["axis"]))))


def _plain_reduction(turning: Turning, node: Node) -> Value | None:
    (x,) = node.inputs
    last = turning.last.get(x)
    if last is None or last.merged:
        return None
    axes = node.attributes["axis"]
    kept = [axis for axis in last.order(x.type.rank) if axis not in axes and x.shape[axis] != 1]
    if kept != sorted(kept):
        return None
    result: Value = turning.b.reshape(_reduced(turning, node).value, shape=node.output.shape)
    return result


def _reshape(turning: Turning, node: Node) -> Last | None:
    """Batch and channels stay together in front, or come apart again; what the rest is cut into does not matter."""
    last, shape = turning.last[node.inputs[0]], node.output.shape
    batch, channels = last.batch, last.channels
    if len(shape) < 3:
        return None
    if shape[:2] == (batch, channels):
        return Last(turning.b.reshape(last.value, shape=(batch, *shape[2:], channels)), merged=False)
    if shape[0] == batch * channels and shape[-1] == 1 and channels != 1:
        return Last(turning.b.reshape(last.value, shape=(batch, *shape[1:-1], channels)), merged=True)
    return None


def _pad(turning: Turning, node: Node) -> Last | None:
    before, after = node.attributes["before"], node.attributes["after"]
    last = turning.last[node.inputs[0]]
    if last.merged and any(amounts[axis] != 0 for amounts in (before, after) for axis in (0, -1)):
        return None
    order = last.order(len(before))
    return turning.of_one(node, before=_moved(before, order), after=_moved(after, order))


def _slice(turning: Turning, node: Node) -> Last | None:
    return _strided(turning, node, "end")


def _unslice(turning: Turning, node: Node) -> Last | None:
    return _strided(turning, node, "shape")


def _strided(turning: Turning, node: Node, name: str) -> Last | None:
    """What takes every so many of each axis; the attribute of that name is the size of one that is left as it is."""
    a, x = node.attributes, node.inputs[0]
    last = turning.last[x]
    order = last.order(x.type.rank)
    begin, step, size = (_moved(a[one], order) for one in ("begin", "step", name))
    if last.merged:
        if any((begin[axis], step[axis], size[axis]) != (0, 1, x.shape[axis]) for axis in (0, -1)):
            return None
        size = (last.batch, *size[1:-1], last.channels)
    return turning.of_one(node, begin=begin, step=step, **{name: size})


def _concat(turning: Turning, node: Node) -> Last | None:
    like, axis, rank = turning.like(node), node.attributes["axis"], node.output.type.rank
    if like is None or (like.merged and axis in (0, rank - 1)):
        return None
    return turning.of_all(node, axis=like.order(rank).index(axis))


def _expand_dims(turning: Turning, node: Node) -> Last | None:
    """Axes put between those of the rest."""
    last = turning.last[node.inputs[0]]
    axes = _among_rest(last, node.attributes["axis"], node.output.type.rank)
    return None if axes is None else turning.of_one(node, axis=axes)


def _squeeze(turning: Turning, node: Node) -> Last | None:
    (x,) = node.inputs
    last = turning.last[x]
    axes = _among_rest(last, node.attributes["axis"], x.type.rank)
    return None if axes is None else turning.of_one(node, axis=axes)


def _of_merged(turning: Turning, node: Node) -> Last | None:
    """What works on each channel of channels-last arrays, and so on many of them as on one."""
    return turning.of_one(node) if turning.last[node.inputs[0]].merged else None


def _unpool(turning: Turning, node: Node) -> Last | None:
    return turning.of_all(node) if all(value in turning.last for value in node.inputs) else None


def _depthwise(turning: Turning, node: Node) -> Last | None:
    x, filters = node.inputs
    last = turning.last.get(x)
    if last is None or last.merged or not node.attributes["channels_first"]:
        return None
    attributes = {**node.attributes, "channels_first": False}
    return Last(turning.b.apply(node.op, [last.value, filters], attributes), merged=False, wanted=True)


def _channel_product(turning: Turning, node: Node) -> Last | None:
    """A matrix times the channels of each place: a convolution over windows of one element."""
    matrix, x = node.inputs
    last = turning.last.get(x)
    a = node.attributes
    if last is None or last.merged or matrix.type.rank != 2 or x.type.rank != 3 or a["transpose_y"]:
        return None
    value = turning.b.dot_general(last.value, matrix, transpose_x=False, transpose_y=not a["transpose_x"])
    return Last(value, merged=False, wanted=x.node.op.name == "reshape")


def _filter_gradient(turning: Turning, node: Node) -> Value | None:
    """The products of channels with channels, summed over places: both operands are read along their channels instead."""
    a = node.attributes
    lasts = [turning.last.get(value) for value in node.inputs]
    if a["transpose_x"] or not a["transpose_y"] or any(value.type.rank != 3 for value in node.inputs):
        return None
    values = [last.value for last in lasts if last is not None and not last.merged]
    if len(values) < 2:
        return None
    result: Value = turning.b.dot_general(*values, transpose_x=True, transpose_y=False)
    turning.gradients.add(result.node)
    return result


def _long_product(turning: Turning, node: Node) -> Value | None:
    """Those products summed over a batch: one product whose sums go over the places of all images."""
    (x,) = node.inputs
    made = x.node
    if (
        node.op.name != "sum"
        or node.attributes["axis"] != (0,)
        or made not in turning.gradients
        or sum(x.uses.values()) > 1
    ):
        return None
    flat = [turning.b.reshape(value, shape=(product(value.shape[:2]), value.shape[2])) for value in made.inputs]
    total = turning.b.dot_general(*flat, transpose_x=True, transpose_y=False)
    result: Value = turning.b.reshape(total, shape=node.output.shape)
    return result


def _moved(amounts: Sequence[Any], order: Sequence[int]) -> tuple[Any, ...]:
    return tuple(amounts[axis] for axis in order)


def _among_rest(last: Last, axes: Sequence[int], rank: int) -> tuple[int, ...] | None:
    """Where axes are with channels last, of `rank`; None if they are not all beside batch and channels."""
    if last.merged:
        return tuple(axes) if all(0 < axis < rank - 1 for axis in axes) else None
    return tuple(axis - 1 for axis in axes) if all(axis > 1 for axis in axes) else None


RULES: dict[str, Callable[[Turning, Node], Last | None]] = {
    "reshape": _reshape,
    "pad": _pad,
    "slice": _slice,
    "unslice": _unslice,
    "concat": _concat,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "sliding_windows": _of_merged,
    "unpool": _unpool,
    "conv_depthwise": _depthwise,
    "dot_general": _channel_product,
}
