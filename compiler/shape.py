"""Shapes, broadcasting, and the type of a tensor."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

from pierian.compiler.dim import Dim, definitely_differ, product
from pierian.compiler.dtype import DType
from pierian.compiler.errors import ArgumentError, ShapeError

Shape = tuple[Dim, ...]


class TensorType:
    """Element type and shape. Immutable; equal types compare equal and hash alike."""

    __slots__ = ("_hash", "dtype", "shape")

    def __init__(self, dtype: DType, shape: Sequence[Dim]) -> None:
        self.dtype = dtype
        self.shape: Shape = tuple(shape)
        self._hash = hash((dtype, self.shape))

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return product(self.shape)

    @property
    def is_static(self) -> bool:
        """True where every size is an integer."""
        return all(isinstance(dim, int) for dim in self.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorType) and self.dtype is other.dtype and self.shape == other.shape

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    __repr__ = __str__


def format_shape(shape: Sequence[Dim]) -> str:
    """A shape as a Python tuple is printed: `(n, 3)`, `(4,)`, `()`."""
    body = ", ".join(map(str, shape))
    return f"({body},)" if len(shape) == 1 else f"({body})"


def broadcast_dim(first: Dim, second: Dim) -> Dim | None:
    """The common size of two dimensions under NumPy's rule, None where they cannot meet.

    Two different unknown sizes are taken to be equal; the program checks this when it runs, since their
    equality becomes a constraint of the graph (see `broadcast_constraints`).
    """
    if first == 1:
        return second
    if second == 1 or first == second:
        return first
    if definitely_differ(first, second):
        return None
    return first if isinstance(first, int) else second if isinstance(second, int) else first


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape all the given shapes broadcast to.

    Raises:
        ShapeError: two sizes that are known to differ and neither is 1.
    """
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for offset, dim in enumerate(shape, rank - len(shape)):
            met = broadcast_dim(result[offset], dim)
            if met is None:
                raise ShapeError(
                    "shapes do not broadcast",
                    got=" and ".join(map(format_shape, shapes)),
                    expected="sizes that are equal or 1, aligned from the last axis",
                )
            result[offset] = met
    return tuple(result)


def broadcast_constraints(shape: Shape, target: Shape) -> list[tuple[Dim, Dim]]:
    """Pairs of sizes that must be equal at run time for `shape` to broadcast to `target`."""
    offset = len(target) - len(shape)
    return [(dim, target[axis + offset]) for axis, dim in enumerate(shape) if dim != 1 and dim != target[axis + offset]]


def normalize_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front.

    Raises:
        ArgumentError: the axis is no integer, or outside the rank.
    """
    try:
        number = operator.index(axis)
    except TypeError:
        raise ArgumentError("an axis is an integer", got=repr(axis)) from None
    if not -rank <= number < rank:
        raise ArgumentError("axis is out of range", got=number, expected=f"{-rank} <= axis < {rank}")
    return number % rank if rank else 0


def listed(axis: int | Sequence[int]) -> list[int]:
    """The axes given as one or several."""
    return list(axis) if isinstance(axis, Iterable) and not isinstance(axis, str) else [axis]


def normalize_axes(axis: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Sorted axes from the front; None means all.

    Raises:
        ArgumentError: an axis that is no integer, outside the rank, or given twice.
    """
    if axis is None:
        return tuple(range(rank))
    axes = listed(axis)
    result = tuple(sorted(normalize_axis(one, rank) for one in axes))
    if len(set(result)) != len(result):
        raise ArgumentError("an axis is given twice", got=tuple(axes))
    return result
