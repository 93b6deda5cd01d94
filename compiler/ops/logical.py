"""Logic on booleans, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pierian.compiler.dtype import bool_
from pierian.compiler.errors import DTypeError
from pierian.compiler.graph.operator import Operator
from pierian.compiler.kernel.scalar import scalar
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType


def _booleans(*types: TensorType) -> TensorType:
    for type_ in types:
        if type_.dtype is not bool_:
            raise DTypeError("logic needs booleans", got=type_, expected="bool", advice="compare with 0 first")
    return rules.broadcast(*types)


def _logic(op: Operator, primitive: str, reference: Callable[..., Any]) -> None:
    op.infer(_booleans)
    op.constraints(rules.equal_after_broadcast)
    op.gradient(lambda b, node, dz: tuple(None for _ in node.inputs))
    op.reference(lambda *arrays: reference(*arrays))
    op.scalar(lambda s, *xs: scalar(primitive, bool_, xs))


@operator(commutative=True, idempotent=True)
def logical_and(x: Tensor, y: Tensor) -> Tensor:
    """Whether both are true."""


@operator(commutative=True, idempotent=True)
def logical_or(x: Tensor, y: Tensor) -> Tensor:
    """Whether at least one is true."""


@operator(commutative=True)
def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    """Whether exactly one is true."""


@operator()
def logical_not(x: Tensor) -> Tensor:
    """Whether it is false."""


_logic(logical_and, "and", np.logical_and)
_logic(logical_or, "or", np.logical_or)
_logic(logical_xor, "xor", np.logical_xor)
_logic(logical_not, "not", np.logical_not)
