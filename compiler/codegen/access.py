"""Index maps seen from a loop nest: how far an access moves when an axis takes a step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pierian.compiler.dim import Dim, coefficient, product, symbol, symbols
from pierian.compiler.kernel.nodes import Buffer
from pierian.compiler.kernel.scalar import Index, Scalar


@dataclass(frozen=True, slots=True)
class Address:
    """The element number of an access: `known + sum of value * stride over computed`.

    Attributes:
        known: the part made of axes and sizes.
        computed: indices computed at run time with their strides.
    """

    known: Dim
    computed: tuple[tuple[Scalar, Dim], ...]


def address(buffer: Buffer, indices: Sequence[Index]) -> Address:
    """The address of an element of a dense row-major buffer."""
    known: Dim = 0
    computed = []
    for position, index in enumerate(indices):
        stride = product(buffer.shape[position + 1 :])
        if isinstance(index, Scalar):
            computed.append((index, stride))
        else:
            known = known + index * stride
    return Address(known, tuple(computed))


def step(expression: Dim, axis: str) -> Dim | None:
    """How much a size expression grows with `axis`: 0 where it does not depend on it, None where not linear."""
    if axis not in symbols(expression):
        return 0
    return coefficient(expression, axis)


def without(expression: Dim, axes: Collection[str]) -> Dim:
    """The expression with the given axes at 0, for expressions linear in them."""
    for axis in axes:
        factor = step(expression, axis)
        if factor != 0 and factor is not None:
            expression = expression - factor * symbol(axis)
    return expression
