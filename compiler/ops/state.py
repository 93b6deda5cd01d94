"""Inputs, constants and variables: the nodes that stand for values from elsewhere."""

from __future__ import annotations

from typing import Any

from pierian.compiler.errors import ShapeError
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType


@operator(public=False, stateful=True)
def placeholder(*, type: TensorType) -> Tensor:
    """A value fed from outside the graph, or a body's parameter."""


@placeholder.infer
def _placeholder_infer(type: TensorType) -> TensorType:
    return type


@operator(public=False)
def constant(*, value: Constant) -> Tensor:
    """A value fixed in the graph."""


@constant.infer
def _constant_infer(value: Constant) -> TensorType:
    return value.type


@constant.reference
def _constant_reference(value: Constant) -> Any:
    return value.array


@operator(public=False, stateful=True)
def variable_read(*, variable: str, type: TensorType) -> Tensor:
    """The value a variable had before the run."""


@variable_read.infer
def _variable_read_infer(variable: str, type: TensorType) -> TensorType:
    return type


@operator(public=False, stateful=True)
def variable_assign(value: Tensor, *, variable: str, type: TensorType) -> Tensor:
    """Gives a variable its value from the end of the run on; the output is that value."""


@variable_assign.infer
def _variable_assign_infer(value: TensorType, variable: str, type: TensorType) -> TensorType:
    if value != type:
        raise ShapeError(f"variable {variable!r} cannot take this value", got=value, expected=type)
    return type


@variable_assign.gradient
def _variable_assign_gradient(b: Any, node: Node, dz: Value) -> tuple[Value, ...]:
    return (dz,)
