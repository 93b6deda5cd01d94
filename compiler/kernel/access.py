"""Index maps seen from a loop nest: how far an access moves when an axis takes a step."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pierian.compiler.dim import Dim, Symbolic, coefficient, symbol, symbols, symbols_of_atom
from pierian.compiler.dtype import int64
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel.nodes import Buffer
from pierian.compiler.kernel.scalar import Index, Scalar


@frozen
class Address:
    """The element number of an access: `known + sum of value * stride over computed`.

    Attributes:
        known: the part made of axes and sizes.
        computed: indices computed at run time with their strides.
    """

    known: Dim
    computed: tuple[tuple[Scalar, Dim], ...]


@frozen
class Clamp:
    """An index computed as `max(min(index, high), low)`.

    Attributes:
        index: what it is between the limits, an expression over axes and sizes.
        low, high: the limits.
        rest: the address without it, once that is known.
    """

    index: Dim
    low: Scalar
    high: Scalar
    rest: Address | None = None


def clamp_of(node: Scalar) -> Clamp | None:
    """A computed index as one that axes and sizes give, kept between limits: how padding and concatenation read."""
    if node.op != "max" or node.args[0].op != "min":
        return None
    index = affine(node.args[0].args[0])
    return None if index is None else Clamp(index, node.args[1], node.args[0].args[1])


def affine(node: Scalar) -> Dim | None:
    """An int64 value as an expression over axes and sizes, where it is a sum of such."""
    if node.op in ("const", "dim") and node.dtype is int64:
        assert isinstance(node.attribute, (int, Symbolic))
        return node.attribute
    if node.op not in ("add", "sub") or node.dtype is not int64:
        return None
    x, y = affine(node.args[0]), affine(node.args[1])
    if x is None or y is None:
        return None
    return x + y if node.op == "add" else x - y


def address(buffer: Buffer, indices: Sequence[Index]) -> Address:
    """The address of an element of a dense row-major buffer."""
    known: Dim = 0
    computed = []
    stride: Dim = 1
    for index, extent in zip(reversed(indices), reversed(buffer.shape), strict=True):
        if isinstance(index, Scalar):
            computed.append((index, stride))
        else:
            known = known + index * stride
        stride = extent * stride
    return Address(known, tuple(reversed(computed)))


def step(expression: Dim, axis: str) -> Dim | None:
    """How much a size expression grows with `axis`: 0 where it does not depend on it, None where not linear."""
    if axis not in symbols(expression):
        return 0
    return coefficient(expression, axis)


def lane_step(expression: Dim, axis: str) -> Dim | None:
    """As `step`, and 0 too where several neighbours along `axis` stand at the same place, and the next ones beside it."""
    found = step(expression, axis)
    if found is not None or isinstance(expression, int):
        return found
    varying = [(m, factor) for m, factor in expression.terms if any(axis in symbols_of_atom(atom) for atom in m)]
    if len(varying) != 1 or varying[0][1] != 1 or len(varying[0][0]) != 1:
        return None
    (atom,) = varying[0][0]
    return 0 if atom.kind == "div" and isinstance(atom.args[1], int) and step(atom.args[0], axis) == 1 else None


def without(expression: Dim, axes: Collection[str]) -> Dim:
    """The expression with the given axes at 0, for expressions linear in them."""
    for axis in axes:
        factor = step(expression, axis)
        if factor != 0 and factor is not None:
            expression = expression - factor * symbol(axis)
    return expression
