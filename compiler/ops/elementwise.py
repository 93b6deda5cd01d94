"""Arithmetic and elementary functions, element by element with broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.builder import ScalarBuilder
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator


@operator(promote="common", commutative=True, infer=rules.broadcast, constraints=rules.equal_after_broadcast)
def add(x: Tensor, y: Tensor) -> Tensor:
    """Sum of `x` and `y`. Integers wrap; booleans: logical or."""


@add.gradient
def _add_gradient(b: Any, node: Node, dz: Value) -> tuple[Value, ...]:
    return tuple(rules.unbroadcast(b, dz, value) for value in node.inputs)


@add.reference
def _add_reference(x: Any, y: Any) -> Any:
    return np.add(x, y)


@add.scalar
def _add_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.logical_or(x, y) if x.dtype.is_bool else s.add(x, y)


@operator(promote="common", commutative=True, infer=rules.broadcast, constraints=rules.equal_after_broadcast)
def multiply(x: Tensor, y: Tensor) -> Tensor:
    """Product of `x` and `y`. Integers wrap; booleans: logical and."""


@multiply.gradient
def _multiply_gradient(b: Any, node: Node, dz: Value) -> tuple[Value, ...]:
    x, y = node.inputs
    return rules.unbroadcast(b, b.multiply(dz, y), x), rules.unbroadcast(b, b.multiply(dz, x), y)


@multiply.reference
def _multiply_reference(x: Any, y: Any) -> Any:
    return np.multiply(x, y)


@multiply.scalar
def _multiply_scalar(s: ScalarBuilder, x: Scalar, y: Scalar) -> Scalar:
    return s.logical_and(x, y) if x.dtype.is_bool else s.mul(x, y)


@operator(promote="float", infer=rules.same, ulp=2, cost=12)
def exp(x: Tensor) -> Tensor:
    """e raised to `x`; integers are computed in floating point."""


@exp.gradient
def _exp_gradient(b: Any, node: Node, dz: Value) -> tuple[Value, ...]:
    return (b.multiply(dz, node.output),)


@exp.reference
def _exp_reference(x: Any) -> Any:
    return np.exp(x)


@exp.scalar
def _exp_scalar(s: ScalarBuilder, x: Scalar) -> Scalar:
    return s.unary("exp", x)
