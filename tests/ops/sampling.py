"""Cases for every operator, from its definition: its `samples`, or types derived from its schema."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.dtype import as_dtype
from pierian.compiler.errors import PierianError
from pierian.compiler.graph.operator import Operator
from pierian.compiler.ops.definition import all_operators
from pierian.compiler.shape import TensorType

NAMES = {
    "f32": "float32",
    "f64": "float64",
    "i32": "int32",
    "i64": "int64",
    "b": "bool",
    "u32": "float32",
    "u64": "float64",
}
# Made by tests of their own: they need bodies, variables or feeds.
STRUCTURAL = {"placeholder", "constant", "variable_read", "variable_assign", "cond", "while_loop", "scan"}

Case = tuple[Operator, str, dict[str, Any]]


def array_of(text: str, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """An array for a type like `f32[2,3]`; `u` types lie strictly between 0 and 1."""
    kind, _, sizes = text.rstrip("]").partition("[")
    shape = tuple(int(size) for size in sizes.split(",") if size)
    dtype = np.dtype(NAMES[kind])
    if kind in ("u32", "u64"):
        return rng.uniform(0.05, 0.95, shape).astype(dtype)
    if dtype.kind == "f":
        return rng.uniform(-2.5, 2.5, shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(-4, 5, shape).astype(dtype)


def derived(op: Operator) -> list[tuple[str, dict[str, Any]]]:
    """Broadcasting, scalar, empty and long cases in every element type that the operator's inference accepts."""
    count = len(op.tensor_parameters)
    patterns = {1: ["[3,4]", "[]", "[0,3]", "[35]"], 2: ["[3,4] [4]", "[] []", "[2,1,3] [5,1]", "[0] [0]", "[35] [35]"]}
    found = []
    for kind in ("f32", "f64", "i32", "i64", "b"):
        for pattern in patterns.get(count, [" ".join(["[3,4]"] * count)]):
            case = " ".join(kind + shape for shape in pattern.split())
            if accepts(op, case):
                found.append((case, {}))
    return found


def accepts(op: Operator, case: str) -> bool:
    """Whether inference takes these types as they are."""
    types = [TensorType(as_dtype(a.dtype), a.shape) for a in arrays_of(case, 0)]
    if op.promote == "float" and not types[0].dtype.is_float:
        return False
    try:
        attributes = {p.name: p.default for p in op.attribute_parameters}
        if op.normalize_rule is not None:
            attributes.update(op.normalize_rule(types, attributes))
        assert op.infer_rule is not None
        op.infer_rule(*types, **attributes)
    except PierianError:
        return False
    return True


def arrays_of(case: str, seed: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [array_of(text, rng) for text in case.split()]


def cases() -> list[Case]:
    """Every case of every operator."""
    found: list[Case] = []
    for op in all_operators():
        if op.name in STRUCTURAL:
            continue
        for case, attributes in op.samples or derived(op):
            found.append((op, case, attributes))
    return found


def label(case: Case) -> str:
    op, types, attributes = case
    return f"{op.name}({types}{', ' + str(attributes) if attributes else ''})"
