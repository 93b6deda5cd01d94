"""Comparisons and tests, element by element; results are booleans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pierian.compiler.dtype import bool_
from pierian.compiler.errors import DTypeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.graph.operator import Operator
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType, broadcast_shapes


def _comparison(op: Operator, scalar: str, reference: Callable[..., Any]) -> None:
    op.infer(rules.broadcast_to_bool)
    op.constraints(rules.equal_after_broadcast)
    op.gradient(lambda b, node, dz: (None, None))
    op.reference(lambda x, y: reference(x, y))
    op.scalar(lambda s, x, y: s.compare(scalar, x, y))


@operator(promote="common", commutative=True)
def equal(x: Tensor, y: Tensor) -> Tensor:
    """Whether `x` equals `y`."""


@operator(promote="common", commutative=True)
def not_equal(x: Tensor, y: Tensor) -> Tensor:
    """Whether `x` differs from `y`; true where either is NaN."""


@operator(promote="common")
def less(x: Tensor, y: Tensor) -> Tensor:
    """Whether `x < y`."""


@operator(promote="common")
def less_equal(x: Tensor, y: Tensor) -> Tensor:
    """Whether `x <= y`."""


@operator(promote="common")
def greater(x: Tensor, y: Tensor) -> Tensor:
    """Whether `x > y`."""


@operator(promote="common")
def greater_equal(x: Tensor, y: Tensor) -> Tensor:
    """Whether `x >= y`."""


_comparison(equal, "eq", np.equal)
_comparison(not_equal, "ne", np.not_equal)
_comparison(less, "lt", np.less)
_comparison(less_equal, "le", np.less_equal)
_comparison(greater, "gt", np.greater)
_comparison(greater_equal, "ge", np.greater_equal)


def _is_test(op: Operator, reference: Callable[..., Any], scalar: Callable[[ScalarBuilder, Scalar], Scalar]) -> None:
    op.infer(lambda x: TensorType(bool_, x.shape))
    op.gradient(lambda b, node, dz: (None,))
    op.reference(lambda x: reference(x))
    op.scalar(lambda s, x: scalar(s, x) if x.dtype.is_float else s.const(reference(np.zeros(1)).item(), bool_))


@operator()
def isnan(x: Tensor) -> Tensor:
    """Whether `x` is not a number."""


@operator()
def isinf(x: Tensor) -> Tensor:
    """Whether `x` is infinite."""


@operator()
def isfinite(x: Tensor) -> Tensor:
    """Whether `x` is neither infinite nor NaN."""


_is_test(isnan, np.isnan, lambda s, x: s.compare("ne", x, x))
_is_test(isinf, np.isinf, lambda s, x: s.eq(s.unary("abs", x), float("inf")))
_is_test(isfinite, np.isfinite, lambda s, x: s.lt(s.unary("abs", x), float("inf")))


@operator(promote="branches")
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`x` where `condition` is true, else `y`; all three broadcast. Gradients flow to the chosen side only."""


@where.infer
def _where_infer(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not bool_:
        raise DTypeError("the condition must be boolean", got=condition, expected="bool")
    if x.dtype is not y.dtype:
        raise DTypeError("element types differ", got=f"{x.dtype}, {y.dtype}")
    return TensorType(x.dtype, broadcast_shapes(condition.shape, x.shape, y.shape))


@where.constraints
def _where_constraints(*types: TensorType) -> list[Any]:
    return rules.equal_after_broadcast(*types)


@where.gradient
def _where_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    condition, x, y = node.inputs
    zero = b.zeros_like(dz)
    return (
        None,
        rules.unbroadcast(b, b.where(condition, dz, zero), x),
        rules.unbroadcast(b, b.where(condition, zero, dz), y),
    )


@where.reference
def _where_reference(condition: Any, x: Any, y: Any) -> Any:
    return np.where(condition, x, y)


@where.scalar
def _where_scalar(s: ScalarBuilder, condition: Scalar, x: Scalar, y: Scalar) -> Scalar:
    return s.select(condition, x, y)


where.samples = [("b[3,1] f32[3,4] f32[4]", {}), ("b[] i32[5] i32[5]", {})]
