"""Running sums and products along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.errors import ArgumentError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.kernel.nodes import Scan
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.shape import TensorType, normalize_axis


def _normalize(types: list[TensorType], attributes: dict[str, Any]) -> dict[str, Any]:
    (x,) = types
    rules.refuse_bool(types, attributes)
    if x.rank == 0:
        raise ArgumentError("a scalar has no axis to walk along", got=x)
    flags = {name: bool(attributes[name]) for name in ("exclusive", "reverse")}
    return {"axis": normalize_axis(attributes["axis"], x.rank), **flags}


@operator(infer=rules.same, normalize=_normalize, ulp=None)
def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Sums of all elements along `axis` up to each one; without that one where `exclusive`, from the end where `reverse`.

    The order of additions is fixed by the shape: vectors are summed in trees, their sums one after the other, so that errors grow
    more slowly than those of plain additions. Integers wrap.
    """


@operator(infer=rules.same, normalize=_normalize, ulp=None)
def cumprod(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Products of all elements along `axis` up to each one; without that one where `exclusive`, from the end where `reverse`.

    The gradient divides by the elements, so it is NaN where one is 0.
    """


@cumsum.gradient
def _cumsum_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    a = node.attributes
    return (b.cumsum(dz, axis=a["axis"], exclusive=a["exclusive"], reverse=not a["reverse"]),)


@cumprod.gradient
def _cumprod_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    a = node.attributes
    behind = b.cumsum(b.multiply(dz, node.output), axis=a["axis"], exclusive=a["exclusive"], reverse=not a["reverse"])
    return (b.divide(behind, node.inputs[0]),)


def _reference(function: Any, first: int, wide: bool) -> Any:
    def run(x: Any, axis: int, exclusive: bool, reverse: bool) -> Any:
        kind = np.float64 if wide and x.dtype.kind == "f" else x.dtype
        turned = np.flip(x, axis) if reverse else x
        total = function(turned, axis=axis, dtype=kind)
        if exclusive:
            start = np.full_like(np.take(total, [0] if x.shape[axis] else [], axis), first)
            total = np.concatenate([start, np.take(total, range(x.shape[axis] - 1), axis)], axis)
        return np.ascontiguousarray(np.flip(total, axis) if reverse else total).astype(x.dtype)

    return run


cumsum.reference(_reference(np.cumsum, 0, True))
cumprod.reference(_reference(np.cumprod, 1, True))


def _kernel(combiner: str) -> Any:
    def write(k: Any, node: Node) -> None:
        """One scan at every point of the other axes."""
        x = node.inputs[0]
        a = node.attributes
        axes = [k.new_axis(dim) for dim in x.shape]
        walked, at = axes[a["axis"]]
        place = x.shape[a["axis"]] - 1 - at if a["reverse"] else at
        index = tuple(place if i == a["axis"] else symbol for i, (_, symbol) in enumerate(axes))
        outer = tuple(axis for axis, _ in axes if axis is not walked)
        target = k.output(node.output)
        k.scan(outer, Scan(target, index, k.read(x, index), (walked,), combiner, a["exclusive"]))

    return write


cumsum.kernel(_kernel("sum"))
cumprod.kernel(_kernel("prod"))

cumsum.samples = cumprod.samples = [
    ("f32[3,37]", {"axis": 1}), ("f64[2,5,7]", {"axis": 1, "reverse": True}), ("i32[70]", {"exclusive": True}),
    ("f32[5,40]", {"axis": 0, "exclusive": True, "reverse": True}), ("f32[2,21]", {"axis": -1, "reverse": True}),
    ("f64[3]", {}), ("f32[0,3]", {"axis": 0}),
]  # fmt: skip
