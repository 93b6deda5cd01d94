"""Fusion: how many kernels things become, and that kernels mean what their operators mean one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.kernel.program import launches
from pierian.compiler.lowering import lower
from pierian.compiler.options import CompileOptions
from pierian.compiler.pipeline import run_passes
from pierian.compiler.state import close_for_compilation

Build = Callable[..., Any]


def graph_of(build: Build, *types: tuple[Any, list[Any]], gradient: bool = False) -> tf.Graph:
    """`build` on placeholders, and with `gradient` the gradients of its sum of squares for all float ones."""
    graph = tf.Graph("fusion")
    with graph.as_default():
        inputs = [tf.placeholder(dtype, shape, name=f"x{i}") for i, (dtype, shape) in enumerate(types)]
        found = build(*inputs)
        outputs = list(found) if isinstance(found, (list, tuple)) else [found]
        if gradient:
            loss = sum(tf.sum(value * value) for value in outputs)
            outputs += tf.gradients(loss, [x for x in inputs if x.dtype.is_float])
        graph.set_outputs(outputs, [f"y{i}" for i in range(len(outputs))])
    return graph


def kinds(graph: tf.Graph) -> dict[str, int]:
    """How many kernels of each kind a graph becomes."""
    closed, _ = close_for_compilation(graph)
    program = lower(run_passes(closed, CompileOptions()))
    found: dict[str, int] = {}
    for launch in launches(program.steps):
        found[launch.kernel.kind] = found.get(launch.kernel.kind, 0) + 1
    return found


def check_against_single_operators(graph: tf.Graph, sizes: dict[str, int]) -> None:
    """Results with and without fusion agree."""
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for value in graph.inputs:
        shape = [size if isinstance(size, int) else sizes[str(size)] for size in value.shape]
        integers = not value.dtype.is_float
        array = rng.integers(0, 3, shape) if integers else rng.standard_normal(shape)
        feeds[value.node.name] = np.asarray(array, value.dtype.numpy)
    results = []
    for options in (CompileOptions(), CompileOptions(fuse=False)):
        with tf.Session(graph, options=options) as session:
            results.append(session.run(graph.outputs, feeds))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def adam(x: Any, dy: Any, w: Any, m: Any, v: Any) -> Any:
    gradient = tf.matmul(x, dy, transpose_a=True)
    m = m + (gradient - m) * 0.1
    v = v + (tf.square(gradient) - v) * 0.001
    return m, v, w - m / (tf.sqrt(v) + 1e-3)


def sgd(x: Any, dy: Any, w: Any) -> Any:
    return w - 0.1 * tf.matmul(x, dy, transpose_a=True)


def two_layers(x: Any, v: Any, w: Any) -> Any:
    return tf.matmul(tf.relu(tf.matmul(x, v)), w)


F = tf.float32
CASES: dict[str, tuple[Build, list[Any], bool, dict[str, int]]] = {
    "SGD is the epilogue of its gradient": (
        sgd, [(F, ["n", 300]), (F, ["n", 400]), (F, [300, 400])], False, {"contraction": 1}),
    "Adam walks large arrays in order": (
        adam, [(F, ["n", 300]), (F, ["n", 400]), *[(F, [300, 400])] * 3], False, {"contraction": 1, "loop": 1}),
    "Adam is the epilogue for small arrays": (
        adam, [(F, ["n", 30]), (F, ["n", 40]), *[(F, [30, 40])] * 3], False, {"contraction": 1}),
    "relu is an epilogue, and so is its gradient, which asks for its result only": (
        two_layers, [(F, ["n", 30]), (F, [30, 40]), (F, [40, 50])], True, {"contraction": 6}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_kernels(case: str) -> None:
    build, types, gradient, wanted = CASES[case]
    graph = graph_of(build, *types, gradient=gradient)
    assert kinds(graph) == wanted
    check_against_single_operators(graph, {"n": 7})
