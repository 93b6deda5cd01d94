"""Rules that many operators share: inference, constraints, and pieces of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.dim import Dim
from pierian.compiler.dtype import bool_
from pierian.compiler.errors import DTypeError
from pierian.compiler.graph.node import Value
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.scalar import Index, Scalar
from pierian.compiler.shape import TensorType, broadcast_constraints, broadcast_shapes, normalize_axes


def same(x: TensorType, **_: Any) -> TensorType:
    """The output is like the input."""
    return x


def broadcast(*types: TensorType, **_: Any) -> TensorType:
    """Element by element over one element type, with broadcasting."""
    first = types[0].dtype
    if any(type_.dtype is not first for type_ in types):
        raise DTypeError("element types differ", got=", ".join(str(t.dtype) for t in types), expected=str(first))
    return TensorType(first, broadcast_shapes(*(type_.shape for type_ in types)))


def broadcast_to_bool(*types: TensorType, **_: Any) -> TensorType:
    """As `broadcast`, with a boolean result."""
    return TensorType(bool_, broadcast(*types).shape)


def equal_after_broadcast(*types: TensorType, **_: Any) -> list[tuple[Dim, Dim]]:
    """The sizes that must be equal at run time for the shapes to broadcast."""
    target = broadcast_shapes(*(type_.shape for type_ in types))
    return [pair for type_ in types for pair in broadcast_constraints(type_.shape, target)]


def normalize_reduction(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    """`axis` as a sorted tuple of axes from the front."""
    return {"axis": normalize_axes(attributes["axis"], types[0].rank), "keepdims": bool(attributes["keepdims"])}


def reduced_shape(x: TensorType, axis: tuple[int, ...], keepdims: bool) -> tuple[Dim, ...]:
    """The shape left after reducing `axis`."""
    if keepdims:
        return tuple(1 if i in axis else dim for i, dim in enumerate(x.shape))
    return tuple(dim for i, dim in enumerate(x.shape) if i not in axis)


def unbroadcast(b: Any, gradient: Value, like: Value) -> Value:
    """Sum a gradient over the axes along which `like` was broadcast, so that it has the shape of `like`."""
    if gradient.shape == like.shape:
        return gradient
    extra = len(gradient.shape) - len(like.shape)
    stretched = tuple(
        axis + extra for axis, dim in enumerate(like.shape) if dim == 1 and gradient.shape[axis + extra] != 1
    )
    axes = tuple(range(extra)) + stretched
    result = b.sum(gradient, axis=axes, keepdims=True) if axes else gradient
    if extra:
        result = b.squeeze(result, axis=tuple(range(extra)))
    return result


def refuse_bool(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    """Arithmetic that has no meaning for booleans, as NumPy sees it."""
    if any(type_.dtype is bool_ for type_ in types):
        raise DTypeError("booleans have no such arithmetic", got="bool", advice="cast to a number first")
    return {}


def quietly(function: Any, *arrays: Any) -> Any:
    """A NumPy function without its warnings: infinities and NaN are results here."""
    with np.errstate(all="ignore"):
        return function(*arrays)


def integer_power(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    """x^y of integers by squaring, one step for each bit of the exponent."""
    one, zero = s.const(1, x.dtype), s.const(0, x.dtype)
    result, base, rest = one, x, y
    for _ in range(x.dtype.bits - 1):
        odd = s.compare("ne", s.binary("and", rest, one), zero)
        result = s.select(odd, s.mul(result, base), result)
        base = s.mul(base, base)
        rest = s.binary("lshr", rest, one)
    is_odd = s.compare("ne", s.binary("and", y, one), zero)
    alternating = s.select(is_odd, x, one)
    small = s.select(s.eq(x, -1), alternating, zero)
    small = s.select(s.eq(x, 1), one, small)
    return s.select(s.lt(y, 0), small, result)


# --- indices that may be known (a Dim) or computed at run time (a Scalar) ---------------------------------------


def index_add(index: Index, amount: Dim) -> Index:
    """An index moved by a size."""
    if isinstance(index, Scalar):
        return index if amount == 0 else ir.binary("add", index, ir.dim(amount))
    return index + amount


def index_multiply(index: Index, factor: Dim) -> Index:
    """An index times a size."""
    if isinstance(index, Scalar):
        return index if factor == 1 else ir.binary("mul", index, ir.dim(factor))
    return index * factor


def index_sum(x: Index, y: Index) -> Index:
    """The sum of two indices."""
    if isinstance(x, Scalar):
        return ir.binary("add", x, y if isinstance(y, Scalar) else ir.dim(y))
    return ir.binary("add", ir.dim(x), y) if isinstance(y, Scalar) else x + y


def index_value(s: ScalarBuilder, index: Index) -> Scalar:
    """An index as an int64 expression."""
    return index if isinstance(index, Scalar) else s.dim(index)
