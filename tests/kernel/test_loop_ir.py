"""The loop IR against the operators' references: kernels run point by point, so an error here is fusion's or lowering's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler import reference
from pierian.compiler.dim import symbol
from pierian.compiler.dtype import as_dtype
from pierian.compiler.elementary import expand
from pierian.compiler.errors import LoweringError
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.interpret import interpret, interpret_program
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Store
from pierian.compiler.lowering import lower
from pierian.compiler.options import CompileOptions
from pierian.compiler.pipeline import run_passes
from pierian.compiler.shape import TensorType
from pierian.compiler.state import close_for_compilation

_path = Path(__file__).parent.parent / "ops" / "sampling.py"
_spec = importlib.util.spec_from_file_location("sampling", _path)
assert _spec is not None and _spec.loader is not None
sampling = sys.modules.setdefault("sampling", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(sampling)

I = symbol("%i")
CASES = [case for case in sampling.cases() if not case[0].random][::3]


def program_outputs(graph: Graph, arrays: list[Any]) -> list[Any]:
    closed, _ = close_for_compilation(graph)
    program = lower(run_passes(closed, CompileOptions()))
    return interpret_program(program, arrays)


@pytest.mark.parametrize("case", CASES, ids=sampling.label)
def test_kernels_mean_what_the_operator_says(case: Any) -> None:
    op, types, attributes = case
    arrays = sampling.arrays_of(types, 7)
    if sum(array.size for array in arrays) > 4000:
        pytest.skip("too many points to walk one by one")
    graph = Graph()
    builder = GraphBuilder(graph)
    inputs = [builder.placeholder(TensorType(as_dtype(a.dtype), a.shape), f"x{i}") for i, a in enumerate(arrays)]
    sequence = any(p.kind == "tensors" for p in op.parameters)
    result = builder.call(op, (inputs,) if sequence else inputs, dict(attributes))
    outputs = result if isinstance(result, tuple) else (result,)
    graph.set_outputs(list(outputs), [f"y{i}" for i in range(len(outputs))])
    wanted = reference.run(graph, dict(zip(inputs, arrays, strict=True)))
    for one, other in zip(program_outputs(graph, arrays), wanted, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def test_control_flow_and_open_sizes() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float64, ["n", 3], name="x")
        state, ys = tf.scan(lambda s, v: (s + tf.sum(v), s * v), tf.constant(0.5, tf.float64), x)
        y = tf.cond(state > 0.0, lambda: tf.softmax(ys, axis=-1), lambda: ys * 2.0)
        z = tf.while_loop(lambda i, a: i < 3, lambda i, a: [i + 1, a * 0.5], [tf.constant(0), tf.sum(y)])[1]
        graph.set_outputs([y, z], ["y", "z"])
    array = np.random.default_rng(0).standard_normal((5, 3))
    found = program_outputs(graph, [array])
    with tf.Session(graph) as session:
        native = session.run(graph.outputs, {"x": array})
    for one, other in zip(found, native, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sin", "expm1", "log1p", "sigmoid", "erf"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_expansions_mean_the_function(name: str, dtype: str, isa: str) -> None:
    kind = as_dtype(dtype)
    x = ir.load("x", (I,), kind)
    whole = ir.unary(name, x)
    (expanded,) = expand([whole], isa)
    points = np.array([0.1, 0.5, 1.0, 3.0, 20.0, 1e-20], kind.numpy)
    results = []
    for value in (whole, expanded):
        y = np.zeros_like(points)
        buffers = (Buffer("x", kind, (6,)), Buffer("y", kind, (6,)))
        interpret(Kernel("loop", buffers, (), (Axis("%i", 6),), (Store("y", (I,), value),)), [points, y], [])
        results.append(y)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6 if dtype == "float32" else 1e-14)


def test_an_access_outside_a_buffer_is_found() -> None:
    kind = as_dtype("float32")
    buffers = (Buffer("x", kind, (3,)), Buffer("y", kind, (4,)))
    kernel = Kernel("loop", buffers, (), (Axis("%i", 4),), (Store("y", (I,), ir.load("x", (I,), kind)),))
    with pytest.raises(LoweringError, match="outside a buffer"):
        interpret(kernel, [np.zeros(3, np.float32), np.zeros(4, np.float32)], [])
