"""Updates of some rows under TensorFlow's names, composed of `scatter_add` and index arithmetic.

Assigned to a variable such an update touches the rows it names and no others (see docs/guide.md, memory).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pierian.compiler.errors import ArgumentError, ShapeError
from pierian.compiler.graph.builder import current


@dataclass(frozen=True)
class IndexedSlices:
    """Some rows of a larger array.

    Attributes:
        values: the rows, [count, ...].
        indices: where each belongs along the first axis, integers [count]; a place may occur more than once.
        dense_shape: the shape of the larger array, if known.
    """

    values: Any
    indices: Any
    dense_shape: Any = None


def tensor_scatter_nd_add(tensor: Any, indices: Any, updates: Any, name: str | None = None) -> Any:
    """A tensor with `updates` added at `indices`, one after the other in order.

    Args:
        tensor: any shape.
        indices: integers [..., k]; each row names a place along the first k axes, of known sizes where k is above one.
        updates: [..., *tensor.shape[k:]].
        name: of the result.

    Raises:
        ShapeError: indices without a known last size, or more of them than axes.
    """
    b = current()
    x, places, rows = b.as_value(tensor), b.as_value(indices), b.as_value(updates)
    depth = places.shape[-1] if places.type.rank else None
    if not isinstance(depth, int) or not 1 <= depth <= x.type.rank:
        raise ShapeError("indices must end in an axis that counts axes of the tensor", got=places.type, expected=x.type)
    lead = tuple(x.type.shape[:depth])
    if depth == 1:
        return b.scatter_add(x, b.squeeze(places, axis=-1), rows)
    if not all(isinstance(dim, int) for dim in lead):
        raise ArgumentError("axes that are indexed together must have known sizes", got=x.type)
    steps = np.array([math.prod(lead[i + 1 :]) for i in range(depth)], places.dtype.numpy)
    flat = b.sum(b.multiply(places, b.constant(steps)), axis=-1)
    rest = tuple(x.type.shape[depth:])
    return b.reshape(b.scatter_add(b.reshape(x, (math.prod(lead), *rest)), flat, rows), (*lead, *rest))


def tensor_scatter_nd_sub(tensor: Any, indices: Any, updates: Any, name: str | None = None) -> Any:
    """`tensor_scatter_nd_add` of what is to be taken away."""
    return tensor_scatter_nd_add(tensor, indices, current().negative(updates), name)
