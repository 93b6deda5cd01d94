"""Fusion: how many kernels things become, and that kernels mean what their operators mean one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pierian as tf
from pierian.compiler.dim import symbol
from pierian.compiler.fusion import fuse
from pierian.compiler.fusion.fuser import _Fuser
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


def two_layers(activation: Build) -> Build:
    return lambda x, v, w: tf.matmul(activation(tf.matmul(x, v)), w)


def cross_entropy(labels: Any, logits: Any) -> Any:
    loss = tf.mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    return loss, *tf.gradients(loss, [logits])


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = tf.matmul(q, k, transpose_b=True) * 0.25
    return tf.matmul(tf.softmax(scores, axis=-1), v)


def heads(x: Any, w: Any) -> Any:
    """Queries, keys and values from one product, split into heads."""
    qkv = tf.permute_dims(tf.reshape(tf.matmul(x, w), [2, 5, 3, 2, 4]), [2, 0, 3, 1, 4])
    return attention(qkv[0], qkv[1], qkv[2])


def moments(x: Any) -> Any:
    mean = tf.mean(x, axis=-1, keepdims=True)
    return mean, tf.mean(tf.square(x - mean), axis=-1, keepdims=True)


def in_two_shapes(x: Any) -> Any:
    """Two results with the same elements, but one axis of one point more in one of them; the rows of both are everything."""
    most = x + tf.max(x, axis=(1, 2), keepdims=True)
    y = most - tf.mean(most, axis=(0, 1, 2), keepdims=True)
    return tf.expand_dims(y, 0), y


def two_sums(x: Any, y: Any) -> Any:
    product = tf.matmul(x, y)
    return tf.sum(product, axis=0), tf.sum(tf.square(product), axis=0)


F = tf.float32
ROWS, WIDE = (F, ["n", 300]), (F, ["n", 400])
HEADS = [(F, [6, "n", 16])] * 3
CASES: dict[str, tuple[Build, list[Any], bool, dict[str, int]]] = {
    "SGD is the epilogue of its gradient": (sgd, [ROWS, WIDE, (F, [300, 400])], False, {"contraction": 1}),
    "Adam walks large arrays in order": (
        adam, [ROWS, WIDE, *[(F, [300, 400])] * 3], False, {"contraction": 1, "loop": 1}),
    "Adam is the epilogue for small arrays": (
        adam, [(F, ["n", 30]), (F, ["n", 40]), *[(F, [30, 40])] * 3], False, {"contraction": 1}),
    "relu is an epilogue, and so is its gradient, which asks for its result only": (
        two_layers(tf.relu), [(F, ["n", 30]), (F, [30, 40]), (F, [40, 50])], True, {"contraction": 6}),
    "gelu is kept with its slope, both written by the first product": (
        two_layers(tf.nn.gelu), [(F, ["n", 30]), (F, [30, 40]), (F, [40, 50])], True, {"contraction": 6}),
    "softmax": (tf.softmax, [ROWS], False, {"loop": 1}),
    "softmax and its gradient": (tf.softmax, [ROWS], True, {"loop": 1}),
    "layer norm": (tf.layer_norm, [ROWS, (F, [300]), (F, [300])], False, {"loop": 1}),
    # One pass for the result and the gradient of x, one for those of scale and shift.
    "layer norm and its gradients": (tf.layer_norm, [ROWS, (F, [300]), (F, [300])], True, {"loop": 2}),
    "mean and variance": (moments, [ROWS], False, {"loop": 1}),
    "axes of one point": (in_two_shapes, [(F, [5, 3, 8])], False, {"loop": 2}),
    # The rows, and the mean over them.
    "cross-entropy and its gradient": (cross_entropy, [(tf.int64, ["n"]), ROWS], False, {"loop": 2}),
    "sums over leading axes": (two_sums, [ROWS, (F, [300, 400])], False, {"contraction": 1, "loop": 1}),
    "attention": (attention, HEADS, False, {"chain": 1}),
    # The loop sums rows of the results and their gradients; all four gradient products are in the grid.
    "attention and its gradients": (attention, HEADS, True, {"chain": 1, "loop": 1, "grid": 1}),
    "heads are index maps": (heads, [(F, [2, 5, 8]), (F, [8, 24])], False, {"contraction": 3, "loop": 1}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_kernels(case: str) -> None:
    build, types, gradient, wanted = CASES[case]
    graph = graph_of(build, *types, gradient=gradient)
    assert kinds(graph) == wanted
    check_against_single_operators(graph, {"n": 7})


def test_reasons_and_traffic_of_a_step_with_adam() -> None:
    closed, _ = close_for_compilation(graph_of(adam, ROWS, WIDE, *[(F, [300, 400])] * 3))
    fusion = fuse(run_passes(closed, CompileOptions()))
    assert {node.op.name: reason for node, reason in fusion.reasons.items()} == {
        "dot_general": "tiles would walk too many arrays beside the result in short pieces"
    }
    n, matrix = symbol("n"), 4 * 300 * 400
    product, update = map(fusion.traffic, fusion.clusters)
    assert product == (4 * 300 * n + 4 * 400 * n, matrix)
    assert update == (4 * matrix, 3 * matrix)


def test_a_value_that_very_many_kernels_read_costs_no_more_questions_than_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def questions(count: int) -> int:
        asked: list[int] = []
        with monkeypatch.context() as patch:
            real = _Fuser._merge
            patch.setattr(_Fuser, "_merge", lambda *args: (asked.append(1), real(*args))[1])
            graph = graph_of(lambda x: [tf.sum(tf.exp(x * (i + 1.0))) for i in range(count)], (F, [1000]))
            fuse(run_passes(close_for_compilation(graph)[0], CompileOptions()))
        return len(asked)

    assert 0 < questions(160) <= 5 * questions(40)


@st.composite
def networks(draw: st.DrawFn) -> tf.Graph:
    """Random graphs of products, reductions along rows and columns, and pointwise work, with several results."""
    graph = tf.Graph("random")
    with graph.as_default():
        values = [tf.placeholder(tf.float64, ["n", 6], name="x"), tf.placeholder(tf.float64, ["n", 6], name="y")]
        w = tf.constant(np.random.default_rng(1).standard_normal((6, 6)) / 3)
        for _ in range(draw(st.integers(2, 12))):
            one, other = (values[draw(st.integers(0, len(values) - 1))] for _ in range(2))
            kind = draw(st.sampled_from(["exp", "add", "product", "row", "rows", "column", "softmax", "turned"]))
            if kind == "exp":
                values.append(tf.exp(-tf.abs(one)))
            elif kind == "add":
                values.append(one * 0.5 + other)
            elif kind == "product":
                values.append(tf.tanh(tf.matmul(one, w)))
            elif kind == "row":
                values.append(other - tf.mean(one, axis=-1, keepdims=True))
            elif kind == "rows":
                values.append(one / (1.0 + tf.expand_dims(tf.sum(tf.square(other), axis=1), axis=1)))
            elif kind == "column":
                values.append(one + tf.tanh(tf.sum(other, axis=0)))
            elif kind == "softmax":
                values.append(tf.softmax(one + other, axis=-1))
            else:
                values.append(tf.matmul(one, tf.matmul(other, w, transpose_b=True), transpose_b=True)[:, :1] * other)
        last = values[-draw(st.integers(1, 3)) :]
        extra = [tf.sum(values[-1], axis=draw(st.sampled_from([0, 1])))]
        loss = sum(tf.sum(tf.square(value)) for value in last)
        outputs = [*last, *extra, loss, *tf.gradients(loss, values[:2], unconnected_gradients="zero")]
        graph.set_outputs(outputs, [f"out{i}" for i in range(len(outputs))])
    return graph


@settings(max_examples=12, deadline=None)
@given(networks(), st.integers(1, 9))
def test_random_networks_mean_the_same_fused_and_operator_by_operator(graph: tf.Graph, n: int) -> None:
    check_against_single_operators(graph, {"n": n})


@pytest.mark.parametrize(
    ("build", "shapes", "count"),
    [
        (lambda a, b: tf.matmul(a, tf.relu(b) * 2.0 + 1.0), [[1, 300], [300, 400]], 1),
        (lambda a, b: tf.matmul(b * 2.0, a, transpose_a=True), [[300, 1], [300, 400]], 1),
        (lambda a, b: tf.matmul(a, tf.permute_dims(tf.tanh(b), (1, 0))), [[1, 300], [400, 300]], 1),
        (lambda a, b, c: tf.matmul(a, b + c), [[30, 1, 100], [30, 100, 80], [80]], 1),
        (lambda a, b: tf.matmul(a * 2.0, b), [[1, 300], [300, 400]], 2),  # a small operand is read again and again
        (lambda a, b: tf.matmul(a, b * 2.0), [[5, 300], [300, 400]], 2),  # so is a large one by several rows
        (lambda a, b, c: tf.matmul(a, tf.relu(tf.matmul(b, c))), [[1, 300], [300, 7], [7, 400]], 2),  # an epilogue
        (lambda a, b: (tf.matmul(a, y := b * 2.0), y), [[1, 300], [300, 400]], 2),  # in memory anyway
    ],
)  # fmt: skip
def test_work_on_an_operand_that_is_read_once(build: Build, shapes: list[list[Any]], count: int) -> None:
    types = [("float32", shape) for shape in shapes]
    graph = graph_of(build, *types)
    assert sum(kinds(graph).values()) == count
    check_against_single_operators(graph, {})
    check_against_single_operators(graph_of(build, *types, gradient=True), {})
