"""Reductions over axes. An empty reduction gives the combiner's identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dtype import bool_, int64
from pierian.compiler.errors import ArgumentError, DTypeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType, listed, normalize_axes, normalize_axis

Axes = int | Sequence[int] | None


def _reduced(x: TensorType, axis: tuple[int, ...], keepdims: bool) -> TensorType:
    return TensorType(x.dtype, rules.reduced_shape(x, axis, keepdims))


def _restore(b: Any, value: Value, node: Node) -> Value:
    """A reduction's result (or gradient) with the reduced axes put back as size 1."""
    if node.attributes["keepdims"]:
        return value
    return b.expand_dims(value, axis=node.attributes["axis"])


def _spread(b: Any, value: Value, node: Node) -> Value:
    """A reduction's gradient at every element that was reduced."""
    return b.broadcast_to(_restore(b, value, node), shape=node.inputs[0].shape)


def _not_bool(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    rules.refuse_bool(types, attributes)
    return rules.normalize_reduction(types, attributes)


@operator(reduction="sum", infer=_reduced, normalize=_not_bool, ulp=None)
def sum(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis` (all axes by default). The element type stays; integers wrap.

    The order of additions is fixed by the shape: results do not depend on the number of threads.
    """


@sum.gradient
def _sum_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (_spread(b, dz, node),)


@sum.reference
def _sum_reference(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    wide = np.float64 if x.dtype.kind == "f" else x.dtype
    return np.sum(x, axis=axis, keepdims=keepdims, dtype=wide).astype(x.dtype)


@operator(reduction="prod", infer=_reduced, normalize=_not_bool, ulp=None)
def prod(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Product over `axis` (all axes by default). The gradient divides by the elements, so it is NaN where one is 0."""


@prod.gradient
def _prod_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.divide(_spread(b, b.multiply(dz, node.output), node), node.inputs[0]),)


@prod.reference
def _prod_reference(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.prod(x, axis=axis, keepdims=keepdims, dtype=x.dtype)


def _extreme_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    """Equally extreme elements share the gradient in equal parts."""
    x = node.inputs[0]
    hit = b.cast(b.equal(x, _spread(b, node.output, node)), dtype=x.dtype)
    count = b.sum(hit, axis=node.attributes["axis"], keepdims=True)
    share = b.divide(_restore(b, dz, node), count)
    return (b.multiply(hit, b.broadcast_to(share, shape=x.shape)),)


@operator(reduction="max", infer=_reduced, normalize=rules.normalize_reduction, idempotent=True)
def max(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element over `axis` (all axes by default); NaN where there is one; -inf (or the least integer) over
    an empty axis. Equal largest elements share the gradient."""


@operator(reduction="min", infer=_reduced, normalize=rules.normalize_reduction, idempotent=True)
def min(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Smallest element over `axis` (all axes by default); NaN where there is one. Equal ones share the gradient."""


max.gradient(_extreme_gradient)
min.gradient(_extreme_gradient)


def _identity(dtype: Any, lowest: bool) -> Any:
    if dtype.kind == "f":
        return -np.inf if lowest else np.inf
    if dtype.kind == "b":
        return not lowest
    return np.iinfo(dtype).min if lowest else np.iinfo(dtype).max


@max.reference
def _max_reference(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.max(x, axis=axis, keepdims=keepdims, initial=_identity(x.dtype, True))


@min.reference
def _min_reference(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.min(x, axis=axis, keepdims=keepdims, initial=_identity(x.dtype, False))


def _only_bool(x: TensorType, axis: tuple[int, ...], keepdims: bool) -> TensorType:
    if x.dtype is not bool_:
        raise DTypeError("this reduction needs booleans", got=x, expected="bool", advice="compare with 0 first")
    return _reduced(x, axis, keepdims)


@operator(reduction="any", infer=_only_bool, normalize=rules.normalize_reduction)
def any(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether at least one element over `axis` is true."""


@operator(reduction="all", infer=_only_bool, normalize=rules.normalize_reduction)
def all(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether every element over `axis` is true."""


any.gradient(lambda b, node, dz: (None,))
all.gradient(lambda b, node, dz: (None,))


@any.reference
def _any_reference(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.any(x, axis=axis, keepdims=keepdims)


@all.reference
def _all_reference(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.all(x, axis=axis, keepdims=keepdims)


def _position_axis(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    axes = [] if attributes["axis"] is None else listed(attributes["axis"])
    if len(axes) != 1:
        raise ArgumentError("positions need one axis", got=attributes["axis"], expected="an integer")
    return {"axis": (normalize_axis(axes[0], types[0].rank),), "keepdims": bool(attributes["keepdims"])}


def _positions(x: TensorType, axis: tuple[int, ...], keepdims: bool) -> TensorType:
    if x.shape[axis[0]] == 0:
        raise ArgumentError("an empty axis has no extreme element", got=x)
    return TensorType(int64, rules.reduced_shape(x, axis, keepdims))


@operator(reduction="argmax", infer=_positions, normalize=_position_axis)
def argmax(x: Tensor, axis: int = -1, keepdims: bool = False) -> Tensor:
    """Position (int64) of the first largest element along `axis`; of the first NaN where there is one."""


@operator(reduction="argmin", infer=_positions, normalize=_position_axis)
def argmin(x: Tensor, axis: int = -1, keepdims: bool = False) -> Tensor:
    """Position (int64) of the first smallest element along `axis`; of the first NaN where there is one."""


argmax.gradient(lambda b, node, dz: (None,))
argmin.gradient(lambda b, node, dz: (None,))


@argmax.reference
def _argmax_reference(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.argmax(x, axis=axis[0], keepdims=keepdims)


@argmin.reference
def _argmin_reference(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.argmin(x, axis=axis[0], keepdims=keepdims)


@operator(cost=0, reads=False)
def size(x: Tensor, axis: Axes = None) -> Tensor:
    """The number of elements along `axis` (in all by default), as an int64 scalar, for sizes known or not."""


@size.normalize
def _size_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {"axis": normalize_axes(attributes["axis"], types[0].rank)}


@size.infer
def _size_infer(x: TensorType, axis: tuple[int, ...]) -> TensorType:
    return TensorType(int64, ())


size.gradient(lambda b, node, dz: (None,))


@size.reference
def _size_reference(x: Any, axis: tuple[int, ...]) -> Any:
    return np.asarray(np.prod([x.shape[one] for one in axis], dtype=np.int64))


@size.lower
def _size_lower(k: Any, node: Node, index: Any) -> Scalar:
    from pierian.compiler.dim import product

    return k.s.dim(product([node.inputs[0].shape[axis] for axis in node.attributes["axis"]]))


def _float_reduction(x: TensorType, axis: tuple[int, ...], keepdims: bool) -> TensorType:
    return _reduced(x, axis, keepdims)


@operator(promote="float", infer=_float_reduction, normalize=rules.normalize_reduction)
def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over `axis` (all axes by default), in floating point; NaN over an empty axis."""


@mean.expand
def _mean_expand(b: Any, x: Value, axis: tuple[int, ...], keepdims: bool) -> Value:
    return b.divide(b.sum(x, axis=axis, keepdims=keepdims), _count(b, x, axis))


def _count(b: Any, x: Value, axis: tuple[int, ...]) -> Value:
    from pierian.compiler.dim import product

    count = product([x.shape[one] for one in axis])
    return b.constant(count, x.dtype) if isinstance(count, int) else b.cast(b.size(x, axis=axis), dtype=x.dtype)


@operator(promote="float", infer=_float_reduction, normalize=rules.normalize_reduction)
def var(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Population variance over `axis` (all axes by default): the mean squared distance from the mean."""


@var.expand
def _var_expand(b: Any, x: Value, axis: tuple[int, ...], keepdims: bool) -> Value:
    center = b.subtract(x, b.mean(x, axis=axis, keepdims=True))
    return b.mean(b.square(center), axis=axis, keepdims=keepdims)


@operator(promote="float", infer=_float_reduction, normalize=rules.normalize_reduction)
def std(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Population standard deviation over `axis` (all axes by default)."""


@std.expand
def _std_expand(b: Any, x: Value, axis: tuple[int, ...], keepdims: bool) -> Value:
    return b.sqrt(b.var(x, axis=axis, keepdims=keepdims))


@operator(promote="float", infer=_float_reduction, normalize=rules.normalize_reduction)
def logsumexp(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """`log(sum(exp(x)))` over `axis` (all axes by default), without overflow."""


@logsumexp.gradient
def _logsumexp_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    """dz times softmax(x). Not exp(x - logsumexp(x)): the rounding of a large logarithm would be magnified."""
    _, grown, total = exponentials(b, node.inputs[0], node.attributes["axis"])
    return (b.multiply(grown, b.divide(_restore(b, dz, node), total)),)


def exponentials(b: Any, x: Value, axis: tuple[int, ...]) -> tuple[Value, Value, Value]:
    """The largest elements over `axis`, `exp(x)` divided by their exponentials, and the sums of that, infinite where the largest
    element is. That is told from others at the end, not before it is subtracted, so that all exponentials are of what cannot be
    positive."""
    top = b.max(x, axis=axis, keepdims=True)
    grown = b.exp(b.subtract(x, top))
    total = b.sum(grown, axis=axis, keepdims=True)
    return top, grown, b.where(b.isfinite(top), total, b.full_like(total, float("inf")))


@logsumexp.expand
def _logsumexp_expand(b: Any, x: Value, axis: tuple[int, ...], keepdims: bool) -> Value:
    top, _, total = exponentials(b, x, axis)
    result = b.where(b.isfinite(top), b.add(b.log(total), top), top)
    return result if keepdims else b.squeeze(result, axis=axis)


_SAMPLES = [
    ("f32[3,5]", {"axis": 1}), ("f32[3,5]", {"axis": 0, "keepdims": True}), ("f64[2,3,4]", {"axis": (0, 2)}),
    ("f32[37]", {}), ("f32[]", {}), ("f32[0,3]", {"axis": 0}),
]  # fmt: skip
for _op in (sum, prod, max, min, mean, var, std, logsumexp):
    _op.samples = _SAMPLES
for _op in (any, all):
    _op.samples = [(case.replace("f32", "b").replace("f64", "b"), attributes) for case, attributes in _SAMPLES]
for _op in (argmax, argmin):
    _op.samples = [("f32[3,5]", {"axis": 1}), ("f64[6,2]", {"axis": 0, "keepdims": True}), ("i32[70]", {})]
size.samples = [("f32[3,5]", {"axis": 1}), ("f32[3,5]", {})]
