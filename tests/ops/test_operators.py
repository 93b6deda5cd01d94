"""Every operator against its own definition: types, native numerics, symbolic sizes, gradients. No code per operator."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pierian.compiler import reference
from pierian.compiler.autodiff.reverse import gradients
from pierian.compiler.compile import compile_graph
from pierian.compiler.dtype import as_dtype
from pierian.compiler.errors import GradientError
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value
from pierian.compiler.shape import TensorType
from pierian.runtime.callable import prepare

_spec = importlib.util.spec_from_file_location("sampling", Path(__file__).parent / "sampling.py")
assert _spec is not None and _spec.loader is not None
sampling = sys.modules["sampling"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sampling)

CASES = sampling.cases()


def build(case: Any, symbolic: bool = False) -> tuple[Graph, list[Value], tuple[Value, ...], list[Any]]:
    op, types, attributes = case
    arrays = sampling.arrays_of(types, 7)
    graph = Graph()
    builder = GraphBuilder(graph)
    inputs = []
    for position, array in enumerate(arrays):
        shape: tuple[Any, ...] = array.shape
        if symbolic:
            shape = tuple(graph.use_symbol(f"s{size}") if size > 1 else size for size in shape)
        inputs.append(builder.placeholder(TensorType(as_dtype(array.dtype), shape), f"x{position}"))
    sequence = any(p.kind == "tensors" for p in op.parameters)
    result = builder.call(op, (inputs,) if sequence else inputs, dict(attributes))
    return graph, inputs, result if isinstance(result, tuple) else (result,), arrays


def tolerance(op: Any, dtype: np.dtype[Any]) -> float:
    return 2e-5 if dtype == np.float32 else 1e-12


@pytest.mark.parametrize("case", CASES, ids=sampling.label)
def test_native_equals_reference(case: Any) -> None:
    graph, inputs, outputs, arrays = build(case)
    expected = reference.run(graph, dict(zip(inputs, arrays, strict=True)), outputs)
    found = prepare(graph, inputs, outputs, threads=1)(arrays)
    for value, native, wanted in zip(outputs, found, expected, strict=True):
        assert native.shape == wanted.shape == value.shape
        assert native.dtype == wanted.dtype == value.dtype.numpy
        if native.dtype.kind == "f":
            np.testing.assert_allclose(
                native, wanted, rtol=tolerance(case[0], native.dtype), atol=tolerance(case[0], native.dtype)
            )
        else:
            np.testing.assert_array_equal(native, wanted)


SYMBOLIC = [
    case
    for case in CASES
    if case[1] and not case[0].alias and case[0].name not in ("slice", "unslice", "broadcast_to", "tile")
]


@pytest.mark.parametrize("case", SYMBOLIC, ids=sampling.label)
def test_symbolic_sizes_give_the_same_bits_as_numpy_shapes(case: Any) -> None:
    graph, inputs, outputs, arrays = build(case, symbolic=True)
    expected = reference.run(graph, dict(zip(inputs, arrays, strict=True)), outputs)
    found = prepare(graph, inputs, outputs, threads=1)(arrays)
    for native, wanted in zip(found, expected, strict=True):
        assert native.shape == wanted.shape
        if native.dtype.kind == "f":
            np.testing.assert_allclose(
                native, wanted, rtol=tolerance(case[0], native.dtype), atol=tolerance(case[0], native.dtype)
            )
        else:
            np.testing.assert_array_equal(native, wanted)


def is_differentiable(case: Any) -> bool:
    op, types, _ = case
    kinks = {"floor", "ceil", "trunc", "round", "sign", "floor_divide", "remainder", "stop_gradient", "prod"}
    return "64[" in types and "f64" in types + " " and op.name not in kinks and not op.random and "f64[0" not in types


GRADIENT_CASES = [
    (op, types.replace("f32", "f64").replace("u32", "u64"), {**attributes})
    for op, types, attributes in CASES
    if "f32" in types or "f64" in types
]
# A cast to float32 is too coarse for finite differences, and the deviation of one element has no slope.
UNSUITABLE = {("cast", "f64[7]"), ("std", "f64[]")}
GRADIENT_CASES = [
    case for case in GRADIENT_CASES if is_differentiable(case) and (case[0].name, case[1]) not in UNSUITABLE
]


def scalar_loss(builder: GraphBuilder, outputs: tuple[Value, ...]) -> Value | None:
    """A sum of squares of sines, so that no symmetry hides an error."""
    floats = [value for value in outputs if value.dtype.is_float]
    if not floats:
        return None
    b: Any = builder
    total = None
    for value in floats:
        part = b.sum(b.multiply(value, b.sin(b.add(value, b.constant(0.3, value.dtype)))))
        total = part if total is None else b.add(total, part)
    return total


@pytest.mark.parametrize("case", GRADIENT_CASES, ids=sampling.label)
def test_gradient_equals_finite_differences(case: Any) -> None:
    graph, inputs, outputs, arrays = build(case)
    if case[0].name in ("log", "log2", "log1p", "sqrt", "rsqrt", "pow"):
        arrays = [np.asarray(np.abs(array) + 0.3) for array in arrays]
    builder = GraphBuilder(graph)
    loss = scalar_loss(builder, outputs)
    floats = [x for x in inputs if x.dtype.is_float]
    if loss is None:
        return
    try:
        found = gradients(builder, [loss], floats)
    except GradientError:
        assert not outputs[0].dtype.is_float or case[0].name in ("zeros_like", "ones_like", "full_like")
        return
    native = prepare(graph, inputs, [g for g in found if g is not None], threads=1)(arrays)
    at = dict(zip(inputs, arrays, strict=True))
    step = 1e-6
    for x, gradient in zip(floats, native, strict=True):
        base = at[x]
        for place in list(np.ndindex(base.shape))[:12]:
            moved = []
            for sign in (1, -1):
                shifted = base.copy()
                shifted[place] += sign * step
                moved.append(float(reference.run(graph, {**at, x: shifted}, [loss])[0]))
            numeric = (moved[0] - moved[1]) / (2 * step)
            assert gradient[place] == pytest.approx(numeric, rel=2e-4, abs=2e-6), (x.name, place)


def test_an_operator_added_at_run_time_needs_one_definition() -> None:
    from pierian.compiler.ops import rules
    from pierian.compiler.ops.definition import Tensor, operator, unregister

    @operator(promote="float", infer=rules.same)
    def cube_for_test(x: Tensor) -> Tensor:
        """`x` cubed."""

    try:
        cube_for_test.gradient(
            lambda b, node, dz: (b.multiply(dz, b.multiply(b.square(node.inputs[0]), b.constant_like(3, dz))),)
        )
        cube_for_test.reference(lambda x: x * x * x)
        cube_for_test.scalar(lambda s, x: s.mul(s.mul(x, x), x))
        for case, attributes in sampling.derived(cube_for_test):
            test_native_equals_reference((cube_for_test, case, attributes))
        test_gradient_equals_finite_differences((cube_for_test, "f64[3,4]", {}))
    finally:
        unregister(cube_for_test)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx512", "avx2", "sse2", "neon"])
def test_every_operator_is_valid_code_for_every_instruction_set(isa: str, target_of: Any) -> None:
    """Machines without it check that LLVM takes what others would run; sizes are known and open."""
    for case, symbolic in [*((case, False) for case in CASES), *((case, True) for case in SYMBOLIC)]:
        graph, inputs, outputs, _ = build(case, symbolic)
        compile_graph(graph, feeds=inputs, fetches=list(outputs), target=target_of(isa))
