"""The memory plan: no two values that are needed at once lie over each other, and the figure printed is what a run takes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.compiler.dim import evaluate
from pierian.compiler.footprint import footprint
from pierian.compiler.kernel.program import Program
from pierian.compiler.lowering.in_place import step_overwrites
from pierian.compiler.lowering.memory import Liveness
from pierian.compiler.options import CompileOptions
from pierian.runtime.callable import PreparedCall
from pierian.runtime.memory import PAGE

APART = CompileOptions(in_place=False, reuse_memory=False, fuse=False)
UNFUSED = CompileOptions(fuse=False)


def random_graph(seed: int) -> tuple[tf.Graph, Any]:
    """Pointwise work, rows, products, movements, branches and loops over a few sizes, several results."""
    choose = random.Random(seed)
    graph = tf.Graph()
    with graph.as_default():
        rows: Any = "n" if seed % 2 else 96
        x = tf.placeholder(tf.float32, [rows, 96], name="x")
        values: list[Any] = [x, tf.softmax(x, axis=-1), x[:, :48], tf.reduce_sum(x, axis=1)]

        def grow(a: Any) -> Any:
            if a.shape.rank == 1:
                return choose.choice([tf.exp(-a * a), a * 2.0 + 1.0, a - tf.reduce_max(a)])
            kind = choose.randrange(8)
            if kind == 0:
                return a - tf.reduce_mean(a, axis=1, keepdims=True)
            if kind == 1:
                return tf.matmul(a, tf.matmul(a, a, transpose_a=True)) * 1e-3
            if kind == 2:
                return tf.flip(a, axis=1) + a
            if kind == 3:
                return tf.cond(tf.reduce_sum(a) > 0.0, lambda: tf.tanh(a), lambda: a * 0.5)
            if kind == 4:
                return tf.while_loop(lambda i, s: i < 3, lambda i, s: [i + 1, tf.tanh(s) + a], [tf.constant(0), a])[1]
            if kind == 5:
                return tf.scan(lambda s, row: (s * 0.5 + row, tf.tanh(s)), tf.reduce_mean(a, axis=0), a)[1]
            return tf.tanh(a) * 0.9 + tf.sigmoid(a)

        for _ in range(choose.randrange(4, 12)):
            values.append(grow(choose.choice(values)))
        graph.set_outputs([*choose.sample(values[1:], 2), values[-1]], ["a", "b", "c"])
    return graph, x


def overlaps(program: Program, sizes: dict[str, int]) -> list[str]:
    """Pairs of temporaries, or of temporaries and the results they lie in, that meet in time and in place."""
    liveness = Liveness(program)
    places = {}
    for name in liveness.of:
        buffer = program.buffers[name]
        size = buffer.dtype.itemsize * int(np.prod([evaluate(dim, sizes) for dim in buffer.shape], dtype=np.int64))
        start = evaluate(buffer.offset, sizes)
        places[name] = (buffer.host or ("" if buffer.kind == "temporary" else name), start, start + size)
        assert buffer.host or buffer.kind == "output" or places[name][2] <= evaluate(program.workspace, sizes)
    wrong = []
    for one, first in liveness.of.items():
        for other, second in liveness.of.items():
            apart = places[one][0] != places[other][0]
            apart = apart or places[one][2] <= places[other][1] or places[other][2] <= places[one][1]
            if one == other or apart or not first.meets(second):
                continue
            step = liveness.steps.get(second.first)
            handed_over = first.last == second.first and step is not None and step_overwrites(program, step, one, other)
            back = second.last == first.first
            if not handed_over and not back:
                wrong.append(f"{one} {first} and {other} {second}")
    return wrong


def test_random_graphs() -> None:
    shared = 0
    for seed in range(6):
        graph, x = random_graph(seed)
        data = {x: np.random.default_rng(seed).standard_normal((96, 96)).astype(np.float32)}
        results = []
        for options in (APART, None, UNFUSED):
            with tf.Session(graph, 2, options) as session:
                results.append(session.run(graph.outputs, data))
        for one, other in zip(results[0], results[2], strict=True):
            np.testing.assert_array_equal(one, other, err_msg=str(seed))
        for one, other in zip(results[0], results[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
        for options in (None, UNFUSED):
            program = plan_graph(graph, options).program
            assert not overlaps(program, {"n": 96}), seed
            shared += sum(bool(buffer.host) for buffer in program.buffers.values())
    assert shared > 0


@pytest.mark.parametrize("threads", [1, 3])
def test_the_figure_is_what_a_run_takes(threads: int) -> None:
    for seed in (2, 3, 5):
        graph, _ = random_graph(seed)
        compiled = compile_graph(graph)
        codes = {kernel: code for kernel, (_, code) in compiled.image.kernels.items()}
        found = footprint(compiled.program, compiled.signature, codes)
        call = PreparedCall(compiled, None, threads)
        results = call([np.ones((70 if seed % 2 else 96, 96), np.float32)])
        sizes = {"n": 70}
        (slot,) = call.executable._slots
        assert slot.workspace.nbytes == evaluate(found.workspace(threads), sizes) + PAGE
        assert sum(one.nbytes for one in results) == evaluate(found.results, sizes)
        assert evaluate(found.inputs, sizes) == 4 * 96 * (70 if seed % 2 else 96)


def test_a_chain_lives_in_the_result() -> None:
    """Every link takes over the memory of the one before it, and the result's memory serves them all."""
    graph = tf.Graph()
    with graph.as_default():
        y = tf.placeholder(tf.float32, ["n", 64], name="x")
        for _ in range(6):
            y = tf.tanh(y) + 1.0
        graph.set_outputs([y], ["y"])
    assert plan_graph(graph, UNFUSED).program.workspace == 0
    assert plan_graph(graph, CompileOptions(fuse=False, in_place=False)).program.workspace != 0


def test_variables_count_once_where_they_are_updated_in_place() -> None:
    graph = tf.Graph()
    with graph.as_default():
        v, w = (tf.Variable(np.ones((10, 10), np.float32), name=name) for name in "vw")
        graph.set_outputs([v.assign(v * 2.0), w.assign(tf.matmul(w, w))], ["v", "w"])
    found = plan_graph(graph).footprint
    assert (found.variables, found.second_arrays, found.results) == (800, 400, 800)
