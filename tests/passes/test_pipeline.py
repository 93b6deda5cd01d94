"""Passes: the text each leaves behind, and the same results with any of them left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pierian as tf
from pierian.compiler import reference
from pierian.compiler.dim import evaluate
from pierian.compiler.errors import ArgumentError
from pierian.compiler.graph.printer import print_graph
from pierian.compiler.kernel.printer import print_kernel, print_program
from pierian.compiler.kernel.program import Launch
from pierian.compiler.lowering import lower
from pierian.compiler.options import CompileOptions
from pierian.compiler.pipeline import pipeline, run_passes
from pierian.compiler.state import close_for_compilation

Golden = Callable[[str, str], None]
NAMES = [step.name for step, _ in pipeline(CompileOptions())]


def mlp() -> tf.Graph:
    """Something for every pass: a dead node, compositions, equal parts, identities, constants to fold."""
    graph = tf.Graph("mlp")
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["n", 4], name="x")
        w = tf.constant(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), name="w")
        tf.exp(x, name="dead")
        scale = tf.sqrt(tf.constant(4.0)) * 0.5 + 0.0
        h = tf.nn.relu(tf.matmul(x, w) * scale)
        again = tf.nn.relu(tf.matmul(x, w) * scale)
        p = tf.softmax(h + again - 0.0, axis=-1)
        y = tf.permute_dims(tf.permute_dims(p, [1, 0]), [1, 0], name="y")
        (dx,) = tf.gradients(tf.sum(y * y), [x])
        graph.set_outputs([y, dx], ["y", "dx"])
    return graph


@pytest.mark.parametrize("name", NAMES)
def test_text_after_a_pass_alone(name: str, golden: Golden) -> None:
    others = tuple(other for other in NAMES if other != name)
    closed, _ = close_for_compilation(mlp())
    golden(f"{name}.pir", print_graph(run_passes(closed, CompileOptions(disable=others)), locations=False))


def test_text_of_a_gradient(golden: Golden) -> None:
    golden("gradient.pir", print_graph(mlp(), locations=False))


def test_text_of_fusion_and_the_memory_plan(golden: Golden) -> None:
    closed, _ = close_for_compilation(mlp())
    program = lower(run_passes(closed, CompileOptions()))
    kernels = dict.fromkeys(step.kernel for step in program.steps if isinstance(step, Launch))
    texts = [print_kernel(kernel, f"k{number}") for number, kernel in enumerate(kernels)]
    golden("program.txt", print_program(program) + "\n".join(texts))


def results(graph: tf.Graph, feeds: dict[str, Any], options: CompileOptions, threads: int = 1) -> list[Any]:
    with tf.Session(graph, threads=threads, options=options) as session:
        return session.run(graph.outputs, feeds)


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_left_out_changes_no_result(name: str) -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((7, 4), dtype=np.float32)}
    graph = mlp()
    wanted = reference.run(graph, {graph.inputs[0]: feeds["x"]})
    # Expansion is what makes compositions executable: every other pass may be missing.
    if name == "expand":
        expanded = run_passes(graph, CompileOptions(disable=tuple(n for n in NAMES if n != "expand")))
        found = reference.run(expanded, {expanded.inputs[0]: feeds["x"]})
    else:
        found = results(graph, feeds, CompileOptions(disable=(name,)))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("options", [CompileOptions(fuse=False), CompileOptions(reuse_memory=False)])
def test_without_fusion_or_shared_memory_results_are_the_same(options: CompileOptions) -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((7, 4), dtype=np.float32)}
    graph = mlp()
    for one, other in zip(results(graph, feeds, options), results(graph, feeds, CompileOptions()), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
    closed, _ = close_for_compilation(graph)
    portable = run_passes(closed, CompileOptions())
    apart, packed = (lower(portable, CompileOptions(fuse=False, reuse_memory=reuse)) for reuse in (False, True))
    assert evaluate(apart.workspace, {"n": 7}) > evaluate(packed.workspace, {"n": 7})
    assert len(packed.steps) > len(lower(portable, CompileOptions()).steps)


def test_the_graph_that_is_compiled_stays_as_it_was() -> None:
    graph = mlp()
    before = print_graph(graph)
    run_passes(graph, CompileOptions())
    assert print_graph(graph) == before


def test_an_unknown_pass_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="no pass named 'fuse-all'"):
        run_passes(mlp(), CompileOptions(disable=("fuse-all",)))


UNARY = ["exp", "tanh", "sin", "abs", "negative", "sigmoid", "square"]
BINARY = ["add", "subtract", "multiply", "maximum", "minimum"]


@st.composite
def graphs(draw: st.DrawFn) -> tf.Graph:
    """Random graphs of a few operators over one open size."""
    graph = tf.Graph("random")
    with graph.as_default():
        values = [tf.placeholder(tf.float64, ["n", 3], name="x"), tf.constant([[0.5], [0.0]], tf.float64)[0]]
        for _ in range(draw(st.integers(1, 10))):
            one, other = (values[draw(st.integers(0, len(values) - 1))] for _ in range(2))
            kind = draw(st.sampled_from(["unary", "binary", "sum", "where", "scalar"]))
            if kind == "unary":
                values.append(getattr(tf, draw(st.sampled_from(UNARY)))(tf.tanh(one)))
            elif kind == "binary":
                values.append(getattr(tf, draw(st.sampled_from(BINARY)))(one, other))
            elif kind == "sum":
                values.append(tf.mean(one, axis=-1, keepdims=True) + other)
            elif kind == "where":
                values.append(tf.where(one > 0.1, other, one))
            else:
                values.append(one * draw(st.sampled_from([0.0, 1.0, -1.0, 2.0])) + draw(st.sampled_from([0.0, 1.0])))
        loss = tf.mean(tf.tanh(values[-1]) + values[0])
        graph.set_outputs([values[-1], *tf.gradients(loss, [values[0]])], ["value", "gradient"])
    return graph


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(0, 5))
def test_random_graphs_mean_what_the_reference_says(graph: tf.Graph, n: int) -> None:
    array = np.random.default_rng(n).standard_normal((n, 3))
    wanted = reference.run(graph, {graph.inputs[0]: array})
    for options in (CompileOptions(), CompileOptions(disable=("simplify", "fold"), fuse=False, reuse_memory=False)):
        for one, other in zip(results(graph, {"x": array}, options), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
