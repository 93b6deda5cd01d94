"""The gradient of attention: its matrices are computed once more block by block, lie in no memory, and give the same numbers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.aot.library import compile_library
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.compiler.cost import kernel_flops
from pierian.compiler.dim import evaluate
from pierian.compiler.kernel.interpret import interpret_program
from pierian.compiler.kernel.program import launches
from pierian.compiler.options import CompileOptions
from pierian.compiler.schedule import grids
from pierian.compiler.target.features import host
from pierian.runtime.executable import Executable

Work = Callable[[Any, Any, Any], Any]
Shape = tuple[int, int, int, int, int]
KINDS = ["chain", "loop", "grid"]


def _places(m: Any, s: Any) -> tuple[Any, Any]:
    if m is np:
        return np.arange(s.shape[-2])[:, None], np.arange(s.shape[-1])[None, :]
    return tf.expand_dims(tf.arange(s.shape[-2]), 1), tf.expand_dims(tf.arange(s.shape[-1]), 0)


def _scaled(m: Any, s: Any, bias: Any) -> Any:
    return s * 0.125


def _biased(m: Any, s: Any, bias: Any) -> Any:
    return s * 0.125 + bias


def _masked(number: float, holds: Callable[[Any, Any], Any] = lambda i, j: j > i) -> Work:
    return lambda m, s, bias: m.where(holds(*_places(m, s)), np.float32(number), s * 0.125)


def _window(m: Any, s: Any, bias: Any) -> Any:
    i, j = _places(m, s)
    return m.where(i - j <= 100, s, np.float32(-1e9))


def sizes_of(b: Any, h: Any, m: Any, n: Any, d: Any) -> dict[str, list[Any]]:
    """The shapes of queries, keys, values, a bias, and what the results are weighted by."""
    return {"q": [b, h, m, d], "k": [b, h, n, d], "v": [b, h, n, d + 3], "b": [b, 1, 1, n], "w": [b, h, m, d + 3]}


def gradients(shape: Shape, work: Work, of: str = "qkv", dtype: str = "float32", open_: bool = False) -> tf.Graph:
    """The graph of gradients of a weighted sum of squares of attention. `shape`: batch, heads, rows, columns, depth."""
    sizes = sizes_of("b", shape[1], "m", "n", shape[4]) if open_ else sizes_of(*shape)
    graph = tf.Graph("gradients")
    with graph.as_default():
        x = {name: tf.placeholder(dtype, size, name=name) for name, size in sizes.items()}
        y = tf.matmul(tf.softmax(work(tf, tf.matmul(x["q"], x["k"], transpose_b=True), x["b"]), axis=-1), x["v"])
        graph.set_outputs(
            tf.gradients(tf.reduce_sum(y * y * x["w"]), [x[name] for name in of]), [f"d{name}" for name in of]
        )
    return graph


def arrays_for(graph: tf.Graph, shape: Shape, dtype: str = "float32") -> list[Any]:
    """Random inputs, in the graph's order."""
    rng = np.random.default_rng(sum(shape))
    made = {name: rng.standard_normal(size).astype(dtype) for name, size in sizes_of(*shape).items()}
    return [made[value.node.name] for value in graph.inputs]


def wanted(graph: tf.Graph, arrays: list[Any], work: Work, of: str = "qkv") -> list[Any]:
    """The gradients in float64."""
    x = {"b": np.zeros(1)} | {
        value.node.name: array.astype(np.float64) for value, array in zip(graph.inputs, arrays, strict=True)
    }
    q, k, v = x["q"], x["k"], x["v"]
    scores = work(np, q @ k.swapaxes(-1, -2), x["b"])
    slope = np.where(work(np, q @ k.swapaxes(-1, -2) + 1.0, x["b"]) == scores, 0.0, 1.0)
    slope = slope * (1.0 if work is _window else 0.125)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dy = 2 * (p @ v) * x["w"]
    dp = dy @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * slope
    found = {"q": ds @ k, "k": ds.swapaxes(-1, -2) @ q, "v": p.swapaxes(-1, -2) @ dy}
    return [found[name] for name in of]


def kinds(graph: tf.Graph) -> list[str]:
    """The kinds of the kernels of a graph."""
    return [launch.kernel.kind for launch in launches(plan_graph(graph).program.steps)]


def run(graph: tf.Graph, arrays: Sequence[Any], threads: int = 1) -> list[Any]:
    with tf.Session(graph, threads=threads) as session:
        return session.run(list(graph.outputs), dict(zip(graph.inputs, arrays, strict=True)))


def assert_near(found: Sequence[Any], right: Sequence[Any], tolerance: float) -> None:
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max(initial=0.0))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids of any size, so that tests need no large ones."""
    monkeypatch.setattr(grids, "FEW_BYTES", 0)
    monkeypatch.setattr(grids, "FEW_MASKED_BYTES", 0)


CASES: dict[str, tuple[Shape, Work, str]] = {
    "plain": ((1, 3, 300, 401, 24), _scaled, "float32"),
    "one_batch_many_columns": ((1, 1, 90, 1500, 33), _biased, "float32"),
    "many_points": ((5, 4, 130, 140, 8), _biased, "float32"),
    "causal": ((1, 2, 555, 555, 16), _masked(-1e9), "float32"),
    "causal_infinite": ((1, 1, 600, 600, 8), _masked(float("-inf")), "float32"),
    "causal_wide": ((1, 2, 250, 700, 8), _masked(-1e9), "float32"),
    "near_mask": ((1, 1, 400, 400, 8), _masked(-3.0), "float32"),
    "first_rows_empty": ((1, 1, 500, 500, 8), _masked(-1e9, lambda i, j: i - j < 5), "float32"),
    "window": ((2, 1, 420, 420, 8), _window, "float32"),
    "columns_before": ((1, 2, 420, 420, 8), _masked(-1e9, lambda i, j: i - j > 90), "float32"),
    "float64": ((1, 2, 150, 430, 20), _biased, "float64"),
    "float64_causal": ((1, 2, 250, 250, 20), _masked(-1e9), "float64"),
}
QUICK = {"one_batch_many_columns", "causal", "near_mask", "float64_causal"}


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("case", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in CASES])
def test_no_matrix_in_memory_the_same_numbers_and_bits(case: str) -> None:
    shape, work, dtype = CASES[case]
    graph = gradients(shape, work, dtype=dtype)
    plan = plan_graph(graph)
    assert [launch.kernel.kind for launch in launches(plan.program.steps)] == KINDS
    assert max(np.prod(buffer.shape) for buffer in plan.program.buffers.values()) < np.prod(shape[:4])
    arrays = arrays_for(graph, shape, dtype)
    compiled = compile_graph(graph)
    results = [Executable(compiled.image, compiled.program, threads).run(tuple(arrays)) for threads in (1, 2, 3, 8)]
    assert results[0] is not None
    assert_near(results[0], wanted(graph, arrays, work), 3e-6 if dtype == "float32" else 1e-14)
    assert len({b"".join(one.tobytes() for one in result or ()) for result in results}) == 1


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("of", ["v", "q", *(pytest.param(of, marks=pytest.mark.slow) for of in ("k", "qk", "vk"))])
def test_some_of_the_gradients(of: str) -> None:
    shape = (2, 2, 250, 300, 16)
    graph = gradients(shape, _biased, of)
    assert kinds(graph) == (["chain", "grid"] if of == "v" else KINDS)
    arrays = arrays_for(graph, shape)
    assert_near(run(graph, arrays, 2), wanted(graph, arrays, _biased, of), 3e-6)


@pytest.mark.parametrize("sizes", [(2, 129, 300), (1, 7, 1100), (1, 1, 2), (2, 3, 0), (2, 0, 3), (0, 3, 4)])
def test_open_sizes(sizes: tuple[int, int, int]) -> None:
    shape = (sizes[0], 3, *sizes[1:], 24)
    graph = gradients(shape, _biased, open_=True)
    assert kinds(graph) == KINDS
    arrays = arrays_for(graph, shape)
    found = run(graph, arrays, 2)
    if shape[3] == 0:
        assert not found[0].any()
    else:
        assert_near(found, wanted(graph, arrays, _biased), 3e-6)


def test_the_interpreter_agrees() -> None:
    shape = (1, 2, 7, 9, 3)
    graph = gradients(shape, _masked(-1e9), open_=True)
    plan = plan_graph(graph)
    arrays = arrays_for(graph, shape)
    assert [launch.kernel.kind for launch in launches(plan.program.steps)] == KINDS
    assert_near(interpret_program(plan.program, arrays), run(graph, arrays), 1e-5)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_gradient_that_is_fed(threads: int) -> None:
    """All that reads the weights comes before the results, which it does not need."""
    shape = (2, 2, 250, 300, 16)
    rng = np.random.default_rng(6)
    sizes = sizes_of(*shape)
    graph = tf.Graph()
    with graph.as_default():
        q, k, v, dy = (tf.placeholder(tf.float32, sizes[name], name=name) for name in "qkvw")
        y = tf.matmul(tf.softmax(tf.matmul(q, k, transpose_b=True) * 0.125, axis=-1), v)
        graph.set_outputs([y, *tf.gradients(y, [q, k, v], grad_ys=dy)], ["y", "dq", "dk", "dv"])
    assert kinds(graph) == KINDS
    arrays = {name: rng.standard_normal(sizes[name], dtype=np.float32) for name in "qkvw"}
    found = run(graph, [arrays[value.node.name] for value in graph.inputs], threads)
    a, b, c, d = (array.astype(np.float64) for array in arrays.values())
    p = np.exp(a @ b.swapaxes(-1, -2) * 0.125)
    p /= p.sum(-1, keepdims=True)
    dp = d @ c.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * 0.125
    assert_near(found, [p @ c, ds @ b, ds.swapaxes(-1, -2) @ a, p.swapaxes(-1, -2) @ d], 3e-6)


@pytest.mark.usefixtures("always")
def test_heads_inside_a_row() -> None:
    """Operands and results that are read and written through index maps, and a loss that does not use the results as they are."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 260, 3, 4, 16), dtype=np.float32)
    graph = tf.Graph()
    with graph.as_default():
        given = tf.placeholder(tf.float32, x.shape, name="x")
        q, k, v = (tf.permute_dims(given, (2, 0, 3, 1, 4))[i] for i in range(3))
        y = tf.matmul(tf.softmax(tf.matmul(q, k, transpose_b=True) * 0.25, axis=-1), v)
        merged = tf.reshape(tf.permute_dims(y, (0, 2, 1, 3)), (2, 260, 64))
        graph.set_outputs(tf.gradients(tf.reduce_sum(tf.tanh(merged)), [q, k, v]), ["dq", "dk", "dv"])
    assert "grid" in kinds(graph) and "contraction" not in kinds(graph)
    q, k, v = x.astype(np.float64).transpose(2, 0, 3, 1, 4)
    p = np.exp(q @ k.swapaxes(-1, -2) * 0.25)
    p /= p.sum(-1, keepdims=True)
    dy = 1 - np.tanh(p @ v) ** 2
    dp = dy @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * 0.25
    assert_near(run(graph, [x], 2), [ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy], 3e-6)


@pytest.mark.usefixtures("always")
def test_a_training_step_of_two_layers() -> None:
    """Products of other layers stand between those of one gradient; a residual beside."""
    rng = np.random.default_rng(9)
    x, weights = rng.standard_normal((2, 200, 32), dtype=np.float32), rng.standard_normal((2, 32, 96), dtype=np.float32)
    graph = tf.Graph()
    with graph.as_default():
        given = y = tf.placeholder(tf.float32, x.shape, name="x")
        projections = [tf.Variable(w * np.float32(0.2), name=f"w{i}") for i, w in enumerate(weights)]
        for projection in projections:
            qkv = tf.permute_dims(tf.reshape(tf.matmul(y, projection), (2, 200, 3, 2, 16)), (2, 0, 3, 1, 4))
            i, j = tf.expand_dims(tf.arange(200), 1), tf.expand_dims(tf.arange(200), 0)
            scores = tf.where(j > i, np.float32(-1e9), tf.matmul(qkv[0], qkv[1], transpose_b=True) * 0.25)
            heads = tf.matmul(tf.softmax(scores, axis=-1), qkv[2])
            y = y + tf.reshape(tf.permute_dims(heads, (0, 2, 1, 3)), (2, 200, 32))
        loss = tf.reduce_mean(y * y)
        updates = [w.assign_sub(g) for w, g in zip(projections, tf.gradients(loss, projections), strict=True)]
        graph.set_outputs([loss, *updates])
    assert kinds(graph).count("grid") == 2
    results = []
    for options in (CompileOptions(), CompileOptions(fuse=False)):
        with tf.Session(graph, threads=2, options=options) as session:
            results.append(session.run(list(graph.outputs), {given: x}))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("always")
def test_weights_times_a_matrix_such_as_dropout() -> None:
    rng = np.random.default_rng(8)
    arrays = [rng.standard_normal((2, 2, 260, 16), dtype=np.float32) for _ in range(3)]
    kept = (rng.random((2, 2, 260, 260)) < 0.8).astype(np.float32) / np.float32(0.8)
    graph = tf.Graph()
    with graph.as_default():
        q, k, v = (tf.placeholder(tf.float32, arrays[0].shape, name=name) for name in "qkv")
        drop = tf.placeholder(tf.float32, kept.shape, name="drop")
        y = tf.matmul(tf.softmax(tf.matmul(q, k, transpose_b=True) * 0.25, axis=-1) * drop, v)
        graph.set_outputs(tf.gradients(tf.reduce_sum(y * y), [q, k, v]), ["dq", "dk", "dv"])
    assert kinds(graph) == KINDS
    a, b, c = (array.astype(np.float64) for array in arrays)
    p = np.exp(a @ b.swapaxes(-1, -2) * 0.25)
    p /= p.sum(-1, keepdims=True)
    dy = 2 * ((p * kept) @ c)
    dp = (dy @ c.swapaxes(-1, -2)) * kept
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * 0.25
    found = run(graph, [dict(zip("qkv", arrays, strict=True)).get(one.node.name, kept) for one in graph.inputs], 2)
    assert_near(found, [ds @ b, ds.swapaxes(-1, -2) @ a, (p * kept).swapaxes(-1, -2) @ dy], 3e-6)


@pytest.mark.usefixtures("always")
def test_matrices_stay_where_somebody_else_needs_them_or_a_row_has_to_be_whole() -> None:
    rng = np.random.default_rng(5)
    a = rng.standard_normal((4, 300, 24), dtype=np.float32)
    for case in ("sum of weights", "weights of another softmax", "scores"):
        graph = tf.Graph()
        with graph.as_default():
            q, k = (tf.placeholder(tf.float32, a.shape, name=name) for name in "qk")
            weights = tf.softmax(tf.matmul(q, k, transpose_b=True), axis=-1)
            results = [tf.matmul(weights, k), tf.matmul(weights, q, transpose_a=True)]
            if case == "sum of weights":
                results.append(tf.reduce_sum(weights, axis=-2))
            elif case == "weights of another softmax":
                results.append(tf.matmul(tf.softmax(weights, axis=-1), q, transpose_a=True))
            else:
                results.append(weights)
            graph.set_outputs(results, ["y", "z", "w"])
        assert "grid" not in kinds(graph), case


def test_few_weights_are_kept() -> None:
    shape = (1, 2, 300, 300, 24)
    graph = gradients(shape, _scaled)
    assert "grid" not in kinds(graph)
    reasons = plan_graph(graph).record.refusals.values()
    assert any("1440000 bytes" in reason and "cost less to read again" in reason for reason in reasons)
    arrays = arrays_for(graph, shape)
    assert_near(run(graph, arrays), wanted(graph, arrays, _scaled), 3e-6)


@pytest.mark.usefixtures("always")
def test_flops_are_those_that_are_done() -> None:
    shape = (1, 2, 300, 400, 24)
    plan = plan_graph(gradients(shape, _scaled))
    (kernel,) = [launch.kernel for launch in launches(plan.program.steps) if launch.kernel.kind == "grid"]
    products = 2 * 2 * 300 * 400 * (24 + 27 + 27 + 24 + 24)  # scores and their gradients, then dv, dq and dk
    rest = kernel_flops(kernel)
    assert isinstance(rest, int)
    assert products < rest < products + 40 * 2 * 300 * 400
    (line,) = plan.kernels[kernel][1].schedule
    assert line.startswith(
        "grid 300 x 400, 2 products of 24 and 27 for each block, then 2 sums over rows and 1 over columns"
    )


def test_peak_memory_has_no_matrix() -> None:
    matrix = 12 * 4096 * 4096 * 4
    plan = plan_graph(gradients((1, 12, 4096, 4096, 61), _masked(-1e9)))
    assert evaluate(plan.footprint.workspace(2), {}) < 80 << 20 < matrix // 9


@pytest.mark.usefixtures("always")
def test_a_library_gives_the_bits_of_a_session(tmp_path: Path) -> None:
    shape = (1, 2, 250, 250, 16)
    graph = gradients(shape, _masked(-1e9))
    arrays = arrays_for(graph, shape)
    library = compile_library(graph, tmp_path / "model")[-1]
    if library.suffix != ".so":
        pytest.skip("needs a linker")
    native = ctypes.CDLL(str(library))
    native.model_workspace.restype = ctypes.c_int64
    room = np.empty(native.model_workspace(ctypes.c_int64(1)) + 64, np.uint8)
    workspace = ctypes.c_void_p(-(-room.ctypes.data // 64) * 64)
    found = [np.empty([evaluate(dim, {}) for dim in value.type.shape], np.float32) for value in graph.outputs]
    places = [ctypes.c_void_p(one.ctypes.data) for one in (*arrays, *found)]
    assert native.model_run(*places, workspace, None) == 0
    assert [one.tobytes() for one in found] == [one.tobytes() for one in run(graph, arrays, 2)]


SLOW_ISAS = [pytest.param(isa, marks=pytest.mark.slow) for isa in ("sse2", "scalar", "neon")]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("isa", ["avx512", "avx2", *SLOW_ISAS])
def test_other_instruction_sets(isa: str, target_of: Any, runs_here: Any) -> None:
    """Code for less capable processors of this machine's kind is run; that for others is only made."""
    target = target_of(isa, l1=host().l1, l2=host().l2, l3=host().l3)
    shape = (1, 2, 230, 230, 9)
    graph = gradients(shape, _masked(-1e9))
    compiled = compile_graph(graph, target=target)
    if runs_here(isa):
        arrays = arrays_for(graph, shape)
        found = Executable(compiled.image, compiled.program, 1).run(tuple(arrays))
        assert found is not None
        assert_near(found, wanted(graph, arrays, _masked(-1e9)), 1e-5)
