"""Movement: the same elements in another order or under another shape. All of it is index maps, none of it copies by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, Symbolic, definitely_differ, divide_exactly, product
from pierian.compiler.errors import ArgumentError, ShapeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import (
    TensorType,
    broadcast_constraints,
    format_shape,
    listed,
    normalize_axes,
    normalize_axis,
)  # fmt: skip

Sizes = Sequence[Any]


def sizes(shape: Any) -> tuple[Dim, ...]:
    """A shape argument: an integer or a sequence of integers and symbolic sizes."""
    given = shape if isinstance(shape, (tuple, list)) else (shape,)
    for dim in given:
        if not isinstance(dim, (int, Symbolic)) or isinstance(dim, bool):
            raise ArgumentError("a shape is made of integers and symbolic sizes", got=dim)
    return tuple(given)


@operator(alias=True)
def reshape(x: Tensor, shape: Sizes) -> Tensor:
    """The elements of `x` in row-major order in another shape; one size may be -1 and follows from the others."""


@reshape.normalize
def _reshape_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    (x,) = types
    shape = sizes(attributes["shape"])
    if shape.count(-1) > 1:
        raise ArgumentError("only one size can be -1", got=format_shape(shape))
    if -1 in shape:
        rest = product([dim for dim in shape if dim != -1])
        if rest == 0:
            raise ShapeError("a size of -1 is not determined beside an empty axis", got=format_shape(shape))
        missing = divide_exactly(x.size, rest)
        if missing is None:
            if isinstance(x.size, int) and isinstance(rest, int):
                raise ShapeError("elements do not fill the shape", got=x, expected=format_shape(shape))
            missing = x.size // rest
        shape = tuple(missing if dim == -1 else dim for dim in shape)
    return {"shape": shape}


@reshape.infer
def _reshape_infer(x: TensorType, shape: tuple[Dim, ...]) -> TensorType:
    if definitely_differ(x.size, product(shape)):
        raise ShapeError("elements do not fill the shape", got=x, expected=format_shape(shape))
    return TensorType(x.dtype, shape)


@reshape.constraints
def _reshape_constraints(x: TensorType, shape: tuple[Dim, ...]) -> list[Any]:
    return [(x.size, product(shape))]


@reshape.gradient
def _reshape_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.reshape(dz, shape=node.inputs[0].shape),)


@reshape.reference
def _reshape_reference(x: Any, shape: tuple[int, ...]) -> Any:
    return np.reshape(x, shape)


@operator()
def permute_dims(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """`x` with its axes in another order; reversed where `axes` is not given."""


@permute_dims.normalize
def _permute_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    rank = types[0].rank
    axes = attributes["axes"]
    chosen = tuple(reversed(range(rank))) if axes is None else tuple(normalize_axis(a, rank) for a in axes)
    if sorted(chosen) != list(range(rank)):
        raise ArgumentError("axes must name every axis once", got=axes, expected=f"an order of {rank} axes")
    return {"axes": chosen}


@permute_dims.infer
def _permute_infer(x: TensorType, axes: tuple[int, ...]) -> TensorType:
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in axes))


@permute_dims.gradient
def _permute_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    axes = node.attributes["axes"]
    return (b.permute_dims(dz, axes=tuple(axes.index(axis) for axis in range(len(axes)))),)


@permute_dims.reference
def _permute_reference(x: Any, axes: tuple[int, ...]) -> Any:
    return np.transpose(x, axes)


@permute_dims.index_map
def _permute_index_map(index: Any, x: TensorType, axes: tuple[int, ...]) -> Any:
    return tuple(index[axes.index(axis)] for axis in range(len(axes)))


@operator()
def broadcast_to(x: Tensor, shape: Sizes) -> Tensor:
    """`x` repeated along new leading axes and along axes of size 1 up to `shape`."""


@broadcast_to.normalize
def _broadcast_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    return {"shape": sizes(attributes["shape"])}


@broadcast_to.infer
def _broadcast_infer(x: TensorType, shape: tuple[Dim, ...]) -> TensorType:
    fits = len(shape) >= x.rank and all(
        dim == 1 or not definitely_differ(dim, target)
        for dim, target in zip(x.shape, shape[len(shape) - x.rank :], strict=True)
    )
    if not fits:
        raise ShapeError("the shape does not broadcast to the target", got=x, expected=format_shape(shape))
    return TensorType(x.dtype, shape)


@broadcast_to.constraints
def _broadcast_constraints(x: TensorType, shape: tuple[Dim, ...]) -> list[Any]:
    return broadcast_constraints(x.shape, shape)


@broadcast_to.gradient
def _broadcast_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (rules.unbroadcast(b, dz, node.inputs[0]),)


@broadcast_to.reference
def _broadcast_reference(x: Any, shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(x, shape)


@broadcast_to.index_map
def _broadcast_index_map(index: Any, x: TensorType, shape: tuple[Dim, ...]) -> Any:
    offset = len(shape) - x.rank
    return tuple(0 if dim == 1 else index[axis + offset] for axis, dim in enumerate(x.shape))


@operator()
def expand_dims(x: Tensor, axis: int | Sequence[int] = 0) -> Tensor:
    """`x` with axes of size 1 put in at the positions `axis` of the result."""


@expand_dims.normalize
def _expand_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    axes = listed(attributes["axis"])
    return {"axis": normalize_axes(axes, types[0].rank + len(axes))}


@expand_dims.infer
def _expand_infer(x: TensorType, axis: tuple[int, ...]) -> TensorType:
    rest = iter(x.shape)
    return TensorType(x.dtype, tuple(1 if i in axis else next(rest) for i in range(x.rank + len(axis))))


@expand_dims.gradient
def _expand_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.squeeze(dz, axis=node.attributes["axis"]),)


@expand_dims.reference
def _expand_reference(x: Any, axis: tuple[int, ...]) -> Any:
    return np.expand_dims(x, axis)


@expand_dims.index_map
def _expand_index_map(index: Any, x: TensorType, axis: tuple[int, ...]) -> Any:
    return tuple(entry for position, entry in enumerate(index) if position not in axis)


@operator()
def squeeze(x: Tensor, axis: int | Sequence[int] | None = None) -> Tensor:
    """`x` without the axes `axis`, which must have size 1; without all that do where `axis` is not given."""


@squeeze.normalize
def _squeeze_normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    (x,) = types
    axis = attributes["axis"]
    if axis is None:
        return {"axis": tuple(i for i, dim in enumerate(x.shape) if dim == 1)}
    return {"axis": normalize_axes(axis, x.rank)}


@squeeze.infer
def _squeeze_infer(x: TensorType, axis: tuple[int, ...]) -> TensorType:
    if any(definitely_differ(x.shape[i], 1) for i in axis):
        raise ShapeError("only axes of size 1 can be taken out", got=x, where=f"squeeze of axes {axis}")
    return TensorType(x.dtype, tuple(dim for i, dim in enumerate(x.shape) if i not in axis))


@squeeze.constraints
def _squeeze_constraints(x: TensorType, axis: tuple[int, ...]) -> list[Any]:
    return [(x.shape[i], 1) for i in axis]


@squeeze.gradient
def _squeeze_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    return (b.expand_dims(dz, axis=node.attributes["axis"]),)


@squeeze.reference
def _squeeze_reference(x: Any, axis: tuple[int, ...]) -> Any:
    return np.squeeze(x, axis)


@squeeze.index_map
def _squeeze_index_map(index: Any, x: TensorType, axis: tuple[int, ...]) -> Any:
    rest = iter(index)
    return tuple(0 if i in axis else next(rest) for i in range(x.rank))


# Cases for tests: input types and attributes.
reshape.samples = [("f32[2,6]", {"shape": (3, -1)}), ("i32[4]", {"shape": (2, 2)}), ("f64[0,3]", {"shape": (0,)})]
permute_dims.samples = [("f32[2,3,4]", {"axes": (2, 0, 1)}), ("f32[5,3]", {})]
broadcast_to.samples = [("f32[3,1]", {"shape": (2, 3, 4)}), ("f64[]", {"shape": (5,)})]
expand_dims.samples = [("f32[3]", {"axis": (0, 2)}), ("f32[3,4]", {"axis": -1})]
squeeze.samples = [("f32[1,3,1]", {"axis": (0, 2)}), ("f32[1,3]", {})]
