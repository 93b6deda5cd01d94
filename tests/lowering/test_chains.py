"""Two products with work on rows between them, such as attention: one kernel, no matrix of scores, the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.compiler.dim import evaluate
from pierian.compiler.kernel.interpret import interpret_program
from pierian.compiler.kernel.program import launches
from pierian.compiler.options import CompileOptions
from pierian.compiler.target.features import host
from pierian.runtime.executable import Executable

# What stands between the scores and the softmax, or instead of it: on tensors, and on arrays of float64.
Work = Callable[[Any, Any, Any], Any]


def _scaled(m: Any, s: Any, bias: Any) -> Any:
    return s * 0.125


def _causal(number: float) -> Work:
    def work(m: Any, s: Any, bias: Any) -> Any:
        n = s.shape[-1]
        if m is np:
            i, j = np.arange(n)[:, None], np.arange(n)[None, :]
        else:
            i, j = tf.expand_dims(tf.arange(n), 1), tf.expand_dims(tf.arange(n), 0)
        return m.where(j > i, np.float32(number), s * 0.125)

    return work


def _first_rows_empty(m: Any, s: Any, bias: Any) -> Any:
    """Rows 0 to 4 have nothing but masked scores."""
    n = s.shape[-1]
    i, j = (np.arange(n)[:, None], np.arange(n)[None, :]) if m is np else (
        tf.expand_dims(tf.arange(n), 1), tf.expand_dims(tf.arange(n), 0))  # fmt: skip
    return m.where(i - j >= 5, s, np.float32(-1e9))


def _window(m: Any, s: Any, bias: Any) -> Any:
    """Columns long before the row are masked."""
    n = s.shape[-1]
    i, j = (np.arange(n)[:, None], np.arange(n)[None, :]) if m is np else (
        tf.expand_dims(tf.arange(n), 1), tf.expand_dims(tf.arange(n), 0))  # fmt: skip
    return m.where(i - j > 100, np.float32(-1e9), s)


def _biased(m: Any, s: Any, bias: Any) -> Any:
    return s * 0.125 + bias


def _softmax(m: Any, s: Any) -> Any:
    if m is not np:
        return tf.softmax(s, axis=-1)
    with np.errstate(invalid="ignore"):
        e = np.exp(s - s.max(-1, keepdims=True, initial=-np.inf))
        return e / e.sum(-1, keepdims=True)


def _squares(m: Any, s: Any) -> Any:
    square = s * s
    return square / (m.sum(square, axis=-1, keepdims=True) + 1.0)


def attention(
    shape: tuple[int, int, int, int, int],
    work: Work,
    normal: Any = _softmax,
    open_: bool = False,
    dtype: str = "float32",
) -> tuple[tf.Graph, list[Any], Any]:
    """A graph, what it is fed, and the result in float64. `shape`: batch, heads, rows, columns, depth."""
    b, h, m, n, d = shape
    rng = np.random.default_rng(sum(shape))
    sizes = [(b, h, m, d), (b, h, n, d), (b, h, n, d + 3), (b, 1, 1, n)]
    arrays = [rng.standard_normal(size).astype(dtype) for size in sizes]
    named = [["b", h, "m", d], ["b", h, "n", d], ["b", h, "n", d + 3], ["b", 1, 1, "n"]] if open_ else sizes
    graph = tf.Graph("attention")
    with graph.as_default():
        q, k, v, bias = (tf.placeholder(dtype, size, name=name) for size, name in zip(named, "qkvb", strict=True))
        weights = normal(tf, work(tf, tf.matmul(q, k, transpose_b=True), bias))
        graph.set_outputs([tf.matmul(weights, v)], ["y"])
    q, k, v, bias = (array.astype(np.float64) for array in arrays)
    wanted = normal(np, work(np, q @ k.swapaxes(-1, -2), bias)) @ v
    return graph, arrays, wanted


def kinds(graph: tf.Graph) -> list[str]:
    """The kinds of the kernels of a graph."""
    return [launch.kernel.kind for launch in launches(plan_graph(graph).program.steps)]


def inputs(graph: tf.Graph, arrays: list[Any]) -> list[Any]:
    """The arrays in the order of the graph's inputs."""
    given = dict(zip("qkvb", arrays, strict=True))
    return [given[value.node.name] for value in graph.inputs]


def run(graph: tf.Graph, arrays: list[Any], threads: int = 1) -> Any:
    with tf.Session(graph, threads=threads) as session:
        return session.run(graph.outputs[0], dict(zip(graph.inputs, inputs(graph, arrays), strict=True)))


CASES: dict[str, tuple[tuple[int, int, int, int, int], Work, Any, str]] = {
    "whole_rows": ((2, 3, 129, 300, 24), _scaled, _softmax, "float32"),
    "one_tile": ((9, 40, 14, 32, 16), _scaled, _softmax, "float32"),
    "blocks": ((1, 2, 61, 1111, 40), _biased, _softmax, "float32"),
    "causal": ((1, 3, 333, 333, 33), _causal(-1e9), _softmax, "float32"),
    "causal_blocks": ((1, 2, 900, 900, 8), _causal(-1e9), _softmax, "float32"),
    "causal_infinite": ((1, 1, 1300, 1300, 8), _causal(float("-inf")), _softmax, "float32"),
    "near_mask": ((1, 1, 700, 700, 8), _causal(-3.0), _softmax, "float32"),
    "first_rows_empty": ((1, 1, 800, 800, 8), _first_rows_empty, _softmax, "float32"),
    "window": ((2, 1, 900, 900, 8), _window, _softmax, "float32"),
    "float64": ((1, 2, 150, 700, 20), _biased, _softmax, "float64"),
    "squares": ((1, 3, 200, 301, 16), _scaled, _squares, "float32"),
    "long_squares": ((1, 1, 50, 2000, 16), _scaled, _squares, "float32"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_kernel_the_same_numbers_and_bits(case: str) -> None:
    shape, work, normal, dtype = CASES[case]
    graph, arrays, wanted = attention(shape, work, normal, dtype=dtype)
    plan = plan_graph(graph)
    assert [launch.kernel.kind for launch in launches(plan.program.steps)] == ["chain"]
    assert plan.program.workspace == 0, "the scores lie in memory"
    found = run(graph, arrays)
    scale = np.abs(wanted).max()
    tolerance = 3e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)
    for threads in (2, 3, 8):
        assert run(graph, arrays, threads).tobytes() == found.tobytes()


@pytest.mark.parametrize(
    "shape", [(2, 3, 129, 300, 24), (1, 2, 7, 1100, 5), (1, 1, 1, 1, 4), (2, 1, 3, 0, 4), (0, 2, 3, 4, 4)]
)
def test_open_sizes(shape: tuple[int, int, int, int, int]) -> None:
    for dtype, tolerance in (("float32", 3e-6), ("float64", 1e-14)):
        graph, arrays, wanted = attention(shape, _biased, open_=True, dtype=dtype)
        assert kinds(graph) == ["chain"]
        np.testing.assert_allclose(run(graph, arrays, 2), wanted, rtol=tolerance, atol=tolerance)


def test_the_interpreter_agrees() -> None:
    graph, arrays, wanted = attention((2, 1, 5, 9, 3), _biased, open_=True)
    plan = plan_graph(graph)
    assert kinds(graph) == ["chain"]
    (found,) = interpret_program(plan.program, inputs(graph, arrays))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_row_of_infinite_masks_is_not_a_number() -> None:
    graph, arrays, _ = attention((1, 2, 40, 700, 8), _biased)
    arrays[3][...] = -np.inf
    arrays[3][..., :600] = np.where(np.arange(600) < 599, -np.inf, 1.0)
    found = run(graph, arrays)
    np.testing.assert_allclose(found, np.broadcast_to(arrays[2][:, :, 599:600], found.shape), rtol=1e-6)
    arrays[3][...] = -np.inf
    assert np.isnan(run(graph, arrays)).all()


def test_heads_inside_a_row_and_heads_that_share_keys() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 150, 3, 6, 16), dtype=np.float32)
    keys = rng.standard_normal((2, 150, 2, 16), dtype=np.float32)
    graph = tf.Graph()
    with graph.as_default():
        given = tf.placeholder(tf.float32, x.shape, name="x")
        shared = tf.placeholder(tf.float32, keys.shape, name="keys")
        q, k, v = (tf.permute_dims(given, (2, 0, 3, 1, 4))[i] for i in range(3))
        weights = tf.softmax(tf.matmul(q, k, transpose_b=True), axis=-1)
        y = tf.permute_dims(tf.matmul(weights, v), (0, 2, 1, 3)) * 2.0 + 1.0
        grouped = tf.permute_dims(tf.reshape(given, (2, 150, 3, 2, 3, 16)), (2, 0, 3, 4, 1, 5))[0]
        few = tf.expand_dims(tf.permute_dims(shared, (0, 2, 1, 3)), 2)
        scores = tf.softmax(tf.matmul(grouped, few, transpose_b=True), axis=-1)
        graph.set_outputs([y, tf.matmul(scores, few)], ["y", "z"])
    assert kinds(graph) == ["chain", "chain"]
    with tf.Session(graph) as session:
        found = session.run(list(graph.outputs), {given: x, shared: keys})
    q, k, v = x.astype(np.float64).transpose(2, 0, 3, 1, 4)
    exact = (_softmax(np, q @ k.swapaxes(-1, -2)) @ v).transpose(0, 2, 1, 3) * 2 + 1
    np.testing.assert_allclose(found[0], exact, rtol=1e-5, atol=1e-5)
    few = keys.astype(np.float64).transpose(0, 2, 1, 3)[:, :, None]
    q = q.reshape(2, 2, 3, 150, 16)
    np.testing.assert_allclose(found[1], _softmax(np, q @ few.swapaxes(-1, -2)) @ few, rtol=1e-5, atol=1e-5)


def test_products_stay_apart_where_a_chain_would_not_pay_or_somebody_needs_the_scores() -> None:
    graph, _, _ = attention((1, 2, 32, 32, 8), _scaled)
    assert "chain" not in kinds(graph), "so few scores stay near"
    assert "the scores stay near: 8192 bytes" in plan_graph(graph).record.refusals.values()
    graph, _, _ = attention((1, 1, 200, 700, 600), _scaled)
    assert "chain" not in kinds(graph), "operands of a block of rows do not stay near"
    graph, _, _ = attention((1, 1, 50, 200_000, 8), _scaled, _squares)
    assert "chain" not in kinds(graph), "whole rows are too long"
    graph = tf.Graph()
    with graph.as_default():
        q, k = (tf.placeholder(tf.float32, [400, 32], name=name) for name in "qk")
        scores = tf.matmul(q, k, transpose_b=True)
        graph.set_outputs([tf.matmul(tf.softmax(scores, axis=-1), k), tf.reduce_sum(scores, axis=0)], ["y", "s"])
    assert "chain" not in kinds(graph)


@pytest.mark.parametrize("work", [_scaled, _causal(-1e9), _causal(-3.0), _first_rows_empty, _window])
def test_weights_that_others_read_are_stored_on_the_way(work: Work) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.standard_normal((4, 300, 24), dtype=np.float32) for _ in range(2))
    graph = tf.Graph()
    with graph.as_default():
        q, k = (tf.placeholder(tf.float32, a.shape, name=name) for name in "qk")
        weights = tf.softmax(work(tf, tf.matmul(q, k, transpose_b=True), None), axis=-1)
        graph.set_outputs([tf.matmul(weights, k), tf.matmul(weights, q, transpose_a=True)], ["y", "z"])
    assert kinds(graph) == ["chain", "contraction"]
    results = []
    for threads in (1, 2, 3, 8):
        with tf.Session(graph, threads=threads) as session:
            results.append(session.run(list(graph.outputs), {q: a, k: b}))
    p = _softmax(np, work(np, a.astype(np.float64) @ b.astype(np.float64).swapaxes(-1, -2), None))
    np.testing.assert_allclose(results[0][0], p @ b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(results[0][1], p.swapaxes(-1, -2) @ a, rtol=1e-5, atol=1e-5)
    assert all(
        one.tobytes() == other.tobytes() for other in results for one, other in zip(results[0], other, strict=True)
    )


@pytest.mark.parametrize("work", [_scaled, _causal(-1e9), _window])
def test_gradients_with_few_weights_are_chains_too(work: Work) -> None:
    rng = np.random.default_rng(6)
    arrays = [rng.standard_normal((2, 240, 12)) for _ in range(3)]
    graph = tf.Graph()
    with graph.as_default():
        q, k, v = (tf.placeholder(tf.float64, arrays[0].shape, name=name) for name in "qkv")
        y = tf.matmul(tf.softmax(work(tf, tf.matmul(q, k, transpose_b=True), None), axis=-1), v)
        graph.set_outputs(tf.gradients(tf.reduce_sum(y * y), [q, k, v]), ["dq", "dk", "dv"])
    assert sorted(kinds(graph)) == ["chain", "chain", "contraction", "contraction"]
    results = []
    for threads in (1, 3):
        with tf.Session(graph, threads=threads) as session:
            results.append(session.run(list(graph.outputs), dict(zip((q, k, v), arrays, strict=True))))
    a, b, c = arrays
    scores = a @ b.swapaxes(-1, -2)
    slope = (work(np, scores + 1e-3, None) - work(np, scores, None)) / 1e-3  # of a scale and a mask
    p = _softmax(np, work(np, scores, None))
    dy = 2 * (p @ c)
    dp = dy @ c.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * slope
    wanted = [ds @ b, ds.swapaxes(-1, -2) @ a, p.swapaxes(-1, -2) @ dy]
    for found, right in zip(results[0], wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-8, atol=1e-8)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("isa", ["avx2", "sse2", "scalar", "neon"])
def test_other_instruction_sets(isa: str, target_of: Any, runs_here: Any) -> None:
    """Code for less capable processors of this machine's kind is run; that for others is only made."""
    target = target_of(isa, l1=host().l1, l2=host().l2, l3=host().l3)
    for shape, work in (((1, 1, 37, 600, 9), _biased), ((1, 1, 530, 530, 5), _causal(-1e9))):
        graph, arrays, wanted = attention(shape, work)
        compiled = compile_graph(graph, target=target)
        if runs_here(isa):
            found = Executable(compiled.image, compiled.program, 1).run(tuple(inputs(graph, arrays)))
            assert found is not None
            np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-5)


def test_peak_memory_has_no_scores() -> None:
    graph, _, _ = attention((1, 12, 4096, 4096, 64), _causal(-1e9), open_=False)
    plan, apart = plan_graph(graph), plan_graph(graph, CompileOptions(fuse=False))
    scores = 12 * 4096 * 4096 * 4
    assert evaluate(plan.footprint.workspace(1), {}) < 32 << 20
    assert evaluate(apart.footprint.workspace(1), {}) > scores
