"""Products whose vectors lie along the sum: few rows against a matrix that lies so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.codegen.contraction.driver import emit_contraction
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.compiler.kernel.program import Launch
from pierian.compiler.target.features import host
from pierian.runtime.executable import Executable


def transposed(x: Any) -> Any:
    rank = len(x.shape)
    return tf.permute_dims(x, [*range(rank - 2), rank - 1, rank - 2])


# Left and right operand, the right one read transposed: rows of both lie along the sum.
SHAPES = [
    ((1, 700), (33, 700)), ((2, 520), (1040, 520)), ((3, 300), (31, 300)), ((5, 4200), (70, 4200)), ((7, 97), (2, 97)),
    ((13, 2100), (9, 2100)), ((300, 500), (3, 500)), ((1030, 130), (1, 130)), ((4, 9000), (3, 9000)),
    ((3, 2, 5, 90), (3, 2, 77, 90)), ((4, 80), (3, 50, 80)), ((3, 60, 400), (5, 400)), ((6, 1, 128), (6, 40, 128)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_whole_numbers_are_exact(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(left))
    for dtype in ("float32", "float64", "int32"):
        a, b = rng.integers(-4, 5, left).astype(dtype), rng.integers(-4, 5, right).astype(dtype)
        graph = tf.Graph()
        with graph.as_default():
            x, y = tf.placeholder(dtype, left, name="a"), tf.placeholder(dtype, right, name="b")
            z = tf.matmul(x, transposed(y))
            more = tf.matmul(x * tf.constant(2, dtype), transposed(y)) + tf.constant(1, dtype)
            other = transposed(tf.matmul(x, transposed(y)))
        wanted = a @ np.swapaxes(b, -1, -2)
        for threads in (1, 2):
            with tf.Session(graph, threads=threads) as session:
                found = session.run([z, more, other], {x: a, y: b})
            np.testing.assert_array_equal(found[0], wanted)
            np.testing.assert_array_equal(found[1], 2 * wanted + 1)
            np.testing.assert_array_equal(found[2], np.swapaxes(wanted, -1, -2))


@pytest.mark.parametrize("isa", ["avx2", "sse2"])
@pytest.mark.parametrize("rows", range(1, 6))
def test_columns_from_memory_are_read_far_apart(rows: int, isa: str, target_of: Any, runs_here: Any) -> None:
    """Columns that fill no tile, no task and no part of a sum."""
    if not runs_here(isa):
        pytest.skip(f"this machine lacks {isa}")
    target = target_of(isa, l1=4 << 10, l2=8 << 10, l3=16 << 10)
    rng = np.random.default_rng(rows)
    for depth, columns in ((128, 1025), (301, 79), (97, 3), (1100, 513)):
        a, b = (
            rng.integers(-4, 5, (rows, depth)).astype(np.float32),
            rng.integers(-4, 5, (columns, depth)).astype(np.float32),
        )
        graph = tf.Graph()
        with graph.as_default():
            x, y = tf.placeholder(tf.float32, a.shape), tf.placeholder(tf.float32, b.shape)
            results = [tf.matmul(x, transposed(y)) + 1.0, transposed(tf.matmul(x, transposed(y)))]
        graph.set_outputs(results)
        compiled = compile_graph(graph, feeds=[x, y], fetches=results, target=target)
        kernels = plan_graph(graph, target=target).kernels.values()
        far = any("columns far apart" in note for _, code in kernels for note in code.schedule)
        assert far is (depth * columns * 4 > target.l2 and rows <= 4)
        for threads in (1, 2, 3):
            found = Executable(compiled.image, compiled.program, threads).run((a, b))
            assert found is not None
            np.testing.assert_array_equal(found[0], a @ b.T + 1)
            np.testing.assert_array_equal(found[1], b @ a.T)


def test_few_columns_and_the_bits_of_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((3000, 1000), dtype=np.float32), rng.standard_normal((1000, 4), dtype=np.float32)
    graph = tf.Graph()
    with graph.as_default():
        x, y = tf.placeholder(tf.float32, a.shape, name="a"), tf.placeholder(tf.float32, b.shape, name="b")
        z = tf.exp(tf.matmul(x, y) * tf.constant(0.01))
    found = []
    for threads in (1, 2, 3, 8):
        with tf.Session(graph, threads=threads) as session:
            found.append(session.run(z, {x: a, y: b}))
    assert len({one.tobytes() for one in found}) == 1
    np.testing.assert_allclose(found[0], np.exp(0.01 * (a.astype(np.float64) @ b)), rtol=3e-6)


@pytest.mark.parametrize(
    ("left", "right", "is_chosen"),
    [((4, 1024), (1024, 1024), True), ((1, 512), (512, 512), True), ((256, 256), (256, 256), False)],
)
def test_the_choice_is_in_the_note(left: tuple[int, int], right: tuple[int, int], is_chosen: bool) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x, y = tf.placeholder(tf.float32, left, name="a"), tf.placeholder(tf.float32, right, name="b")
        z = tf.matmul(x, transposed(y))
    program = compile_graph(graph, feeds=[x, y], fetches=[z]).program
    kernel = next(
        step.kernel for step in program.steps if isinstance(step, Launch) and step.kernel.kind == "contraction"
    )
    (note,) = emit_contraction(kernel, "k", host()).schedule
    assert ("along the vectors of both" in note) is is_chosen


@pytest.mark.parametrize("open_depth", [False, True])
def test_an_open_number_of_rows_is_looked_at_in_each_run(open_depth: bool) -> None:
    rng = np.random.default_rng(4)
    depths = (300, 40) if open_depth else (300,)
    sizes = [(m, n, k) for m in (0, 1, 3, 6, 70) for n in (37, 5) for k in depths]
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [None, None if open_depth else 300], name="x")
        w = tf.placeholder(tf.float32, [None, None if open_depth else 300], name="w")
        z = [tf.matmul(x, transposed(w)), tf.matmul(x + tf.constant(1.0), transposed(w)) + tf.constant(1.0)]
    sessions = [tf.Session(graph, threads=threads) for threads in (1, 2)]
    for m, n, k in sizes:
        a, b = rng.integers(-4, 5, (m, k)).astype("float32"), rng.integers(-4, 5, (n, k)).astype("float32")
        for session in sessions:
            found = session.run(z, {x: a, w: b})
            np.testing.assert_array_equal(found[0], a @ b.T)
            np.testing.assert_array_equal(found[1], (a + 1) @ b.T + 1)
    for session in sessions:
        session.close()


@pytest.mark.parametrize("open_sides", [False, True])
def test_one_row_of_an_open_number_is_a_stream(open_sides: bool) -> None:
    rng = np.random.default_rng(5)
    shape = (None, None) if open_sides else (700, 1111)
    graph = tf.Graph()
    with graph.as_default():
        x, w = tf.placeholder(tf.float32, [None, shape[0]], name="x"), tf.placeholder(tf.float32, shape, name="w")
        z = [tf.matmul(x, w), tf.matmul(x * tf.constant(2.0), w) + tf.constant(1.0)]
    sides = [(700, 1111), (5, 300), (700, 20), (0, 256), (3, 5000)] if open_sides else [(700, 1111)]
    for threads in (1, 2):
        with tf.Session(graph, threads=threads) as session:
            for m, (k, n) in [(m, side) for m in (0, 1, 2, 60) for side in sides]:
                a, b = rng.integers(-4, 5, (m, k)).astype("float32"), rng.integers(-4, 5, (k, n)).astype("float32")
                found = session.run(z, {x: a, w: b})
                np.testing.assert_array_equal(found[0], a @ b)
                np.testing.assert_array_equal(found[1], 2 * a @ b + 1)
