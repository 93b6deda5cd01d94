"""Slicing: parts of a tensor, and a tensor as a part of a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, at_most, is_nonnegative
from pierian.compiler.errors import ArgumentError, ShapeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.ops.movement import Sizes
from pierian.compiler.shape import (
    TensorType,
    normalize_axes,
)  # fmt: skip


@operator()
def slice(x: Tensor, begin: Sizes, end: Sizes, step: Sequence[int]) -> Tensor:
    """Every `step`-th element from `begin` up to `end` (left out), axis by axis.

    Positions count from the front and lie within the axis; where sizes are open a run refuses those that do not. With a negative
    step `begin` is the first element taken and `end` may be -1, before the first. Indexing a tensor (`x[1:, ::-1]`) makes these
    arguments.
    """


@slice.normalize
def _slice_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    found = {name: tuple(attributes[name]) for name in ("begin", "end", "step")}
    if any(len(value) != types[0].rank for value in found.values()):
        raise ArgumentError("begin, end and step are needed for each axis", got=found, expected=types[0].rank)
    if any(not isinstance(step, int) or step == 0 for step in found["step"]):
        raise ArgumentError("steps are integers other than 0", got=found["step"])
    return found


@slice.infer
def _slice_infer(x: TensorType, begin: Any, end: Any, step: Any) -> TensorType:
    shape: list[Dim] = []
    for first, last, stride, dim in zip(begin, end, step, x.shape, strict=True):
        distance = last - first if stride > 0 else first - last
        count = (distance + (abs(stride) - 1)) // abs(stride)
        known = all(isinstance(one, int) for one in (first, last, dim))
        if known and not (0 <= first <= dim and -1 <= last <= dim):
            raise ShapeError("the slice leaves the axis", got=f"{first}:{last}:{stride}", expected=f"within 0:{dim}")
        shape.append(max(count, 0) if isinstance(count, int) else count)
    return TensorType(x.dtype, shape)


@slice.constraints
def _slice_constraints(x: TensorType, begin: Any, end: Any, step: Any) -> list[Any]:
    """The elements that are taken lie within their axis; they stop before `end`."""
    counts = _slice_infer(x, begin, end, step).shape
    pairs: list[tuple[Dim, Dim]] = []
    for first, last, stride, dim, count in zip(begin, end, step, x.shape, counts, strict=True):
        final = first + (count - 1) * stride
        if stride > 0:
            pairs += [at_most(0, first), (0, 0) if is_nonnegative(dim - last) else at_most(final + 1, dim)]
        else:
            pairs += [(0, 0) if is_nonnegative(last + 1) else at_most(0, final), at_most(first + 1, dim)]
    return pairs


@slice.gradient
def _slice_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    x = node.inputs[0]
    a = node.attributes
    if all(step == 1 for step in a["step"]):
        after = tuple(dim - end for dim, end in zip(x.shape, a["end"], strict=True))
        return (b.pad(dz, before=a["begin"], after=after),)
    return (b.unslice(dz, shape=x.shape, begin=a["begin"], step=a["step"]),)


@slice.reference
def _slice_reference(x: Any, begin: Any, end: Any, step: Any) -> Any:
    key = tuple(
        np.s_[first : (None if last < 0 and stride < 0 else last) : stride]
        for first, last, stride in zip(begin, end, step, strict=True)
    )
    return x[key]


@slice.index_map
def _slice_index_map(index: Any, x: TensorType, begin: Any, end: Any, step: Any) -> Any:
    return tuple(
        rules.index_add(rules.index_multiply(entry, stride), first)
        for entry, first, stride in zip(index, begin, step, strict=True)
    )


@operator(public=False)
def unslice(x: Tensor, shape: Sizes, begin: Sizes, step: Sequence[int]) -> Tensor:
    """Zeros of `shape` with `x` at every `step`-th place from `begin` on: the inverse of `slice`."""


@unslice.infer
def _unslice_infer(x: TensorType, shape: Any, begin: Any, step: Any) -> TensorType:
    return TensorType(x.dtype, shape)


@unslice.gradient
def _unslice_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    a = node.attributes
    end = tuple(
        first + dim * stride for first, dim, stride in zip(a["begin"], node.inputs[0].shape, a["step"], strict=True)
    )
    limits = zip(end, a["step"], node.output.shape, strict=True)
    clipped = tuple(_within(last, stride, dim) for last, stride, dim in limits)
    return (b.slice(dz, begin=a["begin"], end=clipped, step=a["step"]),)


def _within(last: Any, stride: int, dim: Any) -> Any:
    if not isinstance(last, int) or not isinstance(dim, int):
        return last
    return min(last, dim) if stride > 0 else max(last, -1)


@unslice.reference
def _unslice_reference(x: Any, shape: Any, begin: Any, step: Any) -> Any:
    result = np.zeros(shape, x.dtype)
    places = [first + stride * np.arange(n) for first, stride, n in zip(begin, step, x.shape, strict=True)]
    result[np.ix_(*places)] = x
    return result


@unslice.lower
def _unslice_lower(k: Any, node: Node, index: Any) -> Scalar:
    s = k.s
    x = node.inputs[0]
    inside = s.const(True, rules.bool_)
    source = []
    for entry, first, stride, dim in zip(
        index, node.attributes["begin"], node.attributes["step"], x.shape, strict=True
    ):
        offset = rules.index_value(s, rules.index_add(entry, -first))
        place = s.div(offset, stride)
        exact = s.eq(s.mul(place, stride), offset)
        last = s.sub(s.dim(dim), 1)
        in_range = s.logical_and(s.compare("ge", place, 0), s.compare("le", place, last))
        inside = s.logical_and(inside, s.logical_and(exact, in_range))
        source.append(s.max(s.min(place, last), 0))
    return s.select(inside, k.read(x, tuple(source)), s.const(0, x.dtype))


@operator()
def pad(x: Tensor, before: Sizes, after: Sizes, value: float = 0) -> Tensor:
    """`x` with `before` and `after` elements equal to `value` put around it, axis by axis.

    An amount given as an expression of open sizes may come out negative: so many elements are cut off then.
    """


@pad.normalize
def _pad_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    found = {name: tuple(attributes[name]) for name in ("before", "after")}
    if any(len(amounts) != types[0].rank for amounts in found.values()):
        raise ArgumentError("padding is needed for each axis", got=found, expected=types[0].rank)
    if any(isinstance(amount, int) and amount < 0 for amounts in found.values() for amount in amounts):
        raise ArgumentError("padding cannot be negative", got=found)
    return found


@pad.infer
def _pad_infer(x: TensorType, before: Any, after: Any, value: float) -> TensorType:
    return TensorType(x.dtype, tuple(b + d + a for b, d, a in zip(before, x.shape, after, strict=True)))


@pad.gradient
def _pad_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    """A size that is not known may be less than none: what the padding then cuts off gets zeros, or cuts them in turn."""
    sides = [node.attributes[side] for side in ("before", "after")]
    back = [tuple(0 if is_nonnegative(amount) else -amount for amount in side) for side in sides]
    if any(amount != 0 for side in back for amount in side):
        dz = b.pad(dz, before=back[0], after=back[1])
    begin = tuple(amount if is_nonnegative(amount) else 0 for amount in sides[0])
    shape = node.inputs[0].shape
    end = tuple(first + dim for first, dim in zip(begin, shape, strict=True))
    return (b.slice(dz, begin=begin, end=end, step=(1,) * len(shape)),)


@pad.reference
def _pad_reference(x: Any, before: Any, after: Any, value: float) -> Any:
    kept = tuple(np.s_[max(-b, 0) : size - max(-a, 0)] for b, size, a in zip(before, x.shape, after, strict=True))
    amounts = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    return np.pad(x[kept], amounts, constant_values=x.dtype.type(value))


@pad.lower
def _pad_lower(k: Any, node: Node, index: Any) -> Scalar:
    x = node.inputs[0]
    before, after = node.attributes["before"], node.attributes["after"]
    moved = [rules.index_add(entry, -first) for entry, first in zip(index, before, strict=True)]
    padded = {axis: dim for axis, dim in enumerate(x.shape) if not before[axis] == after[axis] == 0}
    found: Scalar = k.read_inside(x, tuple(moved), padded, node.attributes["value"])
    return found


@operator()
def flip(x: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    """`x` with the order along `axis` (all axes by default) reversed."""


@flip.infer
def _flip_infer(x: TensorType, axis: Any) -> TensorType:
    normalize_axes(axis, x.rank)
    return x


@flip.expand
def _flip_expand(b: Any, x: Value, axis: Any) -> Value:
    axes = [one for one in normalize_axes(axis, x.type.rank) if x.shape[one] != 0]
    return b.slice(
        x,
        begin=tuple(dim - 1 if i in axes else 0 for i, dim in enumerate(x.shape)),
        end=tuple(-1 if i in axes else dim for i, dim in enumerate(x.shape)),
        step=tuple(-1 if i in axes else 1 for i in range(x.type.rank)),
    )


# Cases for tests: input types and attributes.
slice.samples = [
    ("f32[5,6]", {"begin": (1, 5), "end": (4, -1), "step": (1, -2)}),
    ("f32[7]", {"begin": (1,), "end": (6,), "step": (2,)}),
    ("f64[4]", {"begin": (1,), "end": (3,), "step": (1,)}),
]
unslice.samples = [("f32[3]", {"shape": (7,), "begin": (5,), "step": (-2,)})]
pad.samples = [("f32[2,3]", {"before": (1, 0), "after": (0, 2), "value": 1.5})]
flip.samples = [("f32[3,4]", {"axis": 1}), ("f32[5]", {}), ("f32[2,0]", {"axis": 1})]
