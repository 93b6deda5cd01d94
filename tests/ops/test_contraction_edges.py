"""Products at sizes where tiles, blocks and stripes end, and the same bits for any number of threads."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph
from pierian.runtime.executable import Executable

SIZES = [
    (1, 1, 1), (1, 1100, 70), (1, 2100, 129), (1300, 1, 67), (3, 5, 7), (13, 31, 17), (14, 32, 384), (15, 33, 385),
    (47, 65, 401), (49, 97, 20), (130, 257, 33), (29, 300, 900), (60, 70, 3300), (85, 1100, 300),
    (33, 70, 1), (270, 90, 35), (0, 4, 3), (4, 0, 3), (4, 3, 0),
]  # fmt: skip


def product(
    shape: tuple[int, int, int], transposed: tuple[bool, bool], dtype: Any, threads: int, open_: bool, more: int = 1
) -> Any:
    """Found and wanted; with `more` the products are increased, without they are stored as they are."""
    m, n, k = shape
    rng = np.random.default_rng(m + 7 * n + 49 * k)
    a = rng.integers(-4, 5, (k, m) if transposed[0] else (m, k)).astype(dtype)
    b = rng.integers(-4, 5, (n, k) if transposed[1] else (k, n)).astype(dtype)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(dtype, [None, None] if open_ else a.shape, name="a")
        y = tf.placeholder(dtype, [None, None] if open_ else b.shape, name="b")
        left = tf.permute_dims(x, [1, 0]) if transposed[0] else x
        right = tf.permute_dims(y, [1, 0]) if transposed[1] else y
        z = tf.matmul(left, right) + tf.constant(more, dtype) if more else tf.matmul(left, right)
    with tf.Session(graph, threads=threads) as session:
        found = session.run(z, {x: a, y: b})
    return found, (a.T if transposed[0] else a) @ (b.T if transposed[1] else b) + np.asarray(more, dtype)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_small_whole_numbers_are_exact(shape: tuple[int, int, int], transposed: tuple[bool, bool]) -> None:
    for dtype, more in (("float32", 1), ("float32", 0), ("float64", 0), ("int32", 1)):
        found, wanted = product(shape, transposed, dtype, 1, False, more)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("shape", SIZES)
def test_open_sizes(shape: tuple[int, int, int]) -> None:
    for more in (0, 1):
        found, wanted = product(shape, (False, False), "float32", 2, True, more)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("depth", "columns"), [(30, 40), (300, 520)])
def test_one_compilation_for_any_number_of_rows(depth: int, columns: int) -> None:
    """Blocks are even shares of the rows, cut into tall and low tiles; with an epilogue and without."""
    rng = np.random.default_rng(depth)
    w = rng.integers(-4, 5, (depth, columns)).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [None, depth], name="x")
        plain = tf.matmul(x, tf.constant(w))
        fetches = [plain, tf.matmul(x, tf.constant(w + 1)) + 1, tf.matmul(x, x, transpose_b=True)]
    with tf.Session(graph, threads=2) as session:
        call = session.make_callable(fetches, [x])
        for rows in (0, 1, 7, 8, 13, 14, 15, 22, 64, 127, 128, 129, 169, 253, 340):
            a = rng.integers(-4, 5, (rows, depth)).astype(np.float32)
            for found, wanted in zip(call(a), (a @ w, a @ (w + 1) + 1, a @ a.T), strict=True):
                np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("depth", [512, 5000])
def test_long_sums_are_as_accurate_as_those_of_numpy(depth: int) -> None:
    rng = np.random.default_rng(depth)
    a, b = rng.standard_normal((64, depth), dtype=np.float32), rng.standard_normal((depth, 64), dtype=np.float32)
    graph = tf.Graph()
    with graph.as_default():
        x, y = tf.placeholder(tf.float32, a.shape, name="a"), tf.placeholder(tf.float32, b.shape, name="b")
        z = tf.matmul(x, y)
    with tf.Session(graph) as session:
        found = session.run(z, {x: a, y: b})
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert np.std(found - exact) <= 1.1 * np.std(a @ b - exact)


@pytest.mark.parametrize(("batch", "m", "n", "k"), [(1, 9, 70, 6100), (3, 20, 17, 1700), (1, 61, 90, 3001)])
def test_long_sums_of_few_results_are_split(batch: int, m: int, n: int, k: int) -> None:
    """Whether or not the length is known, with an epilogue and without, and in the same way for any number of threads."""
    for dtype in ("float32", "float64", "int32"):
        rng = np.random.default_rng(k)
        a, b = rng.integers(-4, 5, (batch, k, m)).astype(dtype), rng.integers(-4, 5, (batch, k, n)).astype(dtype)
        c = rng.standard_normal((batch, k, n)).astype(dtype)
        for depth in (k, None):
            results = []
            for threads in (1, 2, 3, 8) if dtype == "float32" else (2,):
                graph = tf.Graph()
                with graph.as_default():
                    x, y = tf.placeholder(dtype, (batch, depth, m)), tf.placeholder(dtype, (batch, depth, n))
                    z = tf.matmul(x, y, transpose_a=True)
                    fetches = [z, tf.matmul(x * tf.constant(2, dtype), y, transpose_a=True) + z]
                if threads == 2:
                    notes = [
                        note
                        for _, code in compile_graph(graph, feeds=[x, y], fetches=fetches).image.kernels.values()
                        for note in code.schedule
                    ]
                    assert sum("splits" in note for note in notes) == 2, notes
                with tf.Session(graph, threads=threads) as session:
                    results.append(session.run(fetches, {x: a, y: c}))
                    found = session.run(fetches, {x: a, y: b})
                    none = session.run(z, {x: a[:, :0], y: b[:, :0]}) if depth is None else 0
                wanted = a.swapaxes(1, 2) @ b
                np.testing.assert_array_equal(found[0], wanted)
                np.testing.assert_array_equal(found[1], 3 * wanted)
                assert not np.any(none)
            assert all(one.tobytes() == two.tobytes() for one, two in zip(results[0], results[-1], strict=True))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((1, 700), (700, 1111)),
        ((2, 520), (520, 1040)),
        ((4, 300), (300, 2100)),
        ((9, 1, 70), (9, 70, 700)),
        ((3, 5), (5, 70_000)),
    ],
)
def test_few_rows_against_a_large_matrix(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(left))
    for dtype in ("float32", "float64", "int32"):
        a, b = rng.integers(-4, 5, left).astype(dtype), rng.integers(-4, 5, right).astype(dtype)
        graph = tf.Graph()
        with graph.as_default():
            x, y = tf.placeholder(dtype, left, name="a"), tf.placeholder(dtype, right, name="b")
            z = tf.matmul(x * tf.constant(2, dtype), y) + tf.constant(1, dtype)
        with tf.Session(graph, threads=2) as session:
            np.testing.assert_array_equal(session.run(z, {x: a, y: b}), np.matmul(a * 2, b) + 1)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 300, 100), (2, 1000, 129), (3, 37, 64), (5, 90, 4200), (8, 33, 70)])
def test_few_rows_or_columns_along_their_sums(m: int, n: int, k: int) -> None:
    """Whichever operand is the small one, and wherever both lie contiguously."""
    rng = np.random.default_rng(n)
    for dtype in ("float32", "float64", "int32"):
        small, large = rng.integers(-4, 5, (2, m, k)).astype(dtype), rng.integers(-4, 5, (2, n, k)).astype(dtype)
        wanted = 2 * small @ large.swapaxes(1, 2) + 1
        graph = tf.Graph()
        with graph.as_default():
            x, y = tf.placeholder(dtype, small.shape, name="x"), tf.placeholder(dtype, large.shape, name="y")
            u, v = tf.permute_dims(x, [0, 2, 1]), tf.permute_dims(y, [0, 2, 1])
            one, two = tf.constant(1, dtype), tf.constant(2, dtype)
            z = [tf.matmul(x * two, v) + one, tf.matmul(y * two, u) + one, tf.matmul(x[:1], v[:1]), tf.matmul(y, u[:1])]
        with tf.Session(graph, threads=2) as session:
            found = session.run(z, {x: small, y: large})
        right = (wanted, wanted.swapaxes(1, 2), small[:1] @ large[:1].swapaxes(1, 2), large @ small[:1].swapaxes(1, 2))
        for one_, other in zip(found, right, strict=True):
            np.testing.assert_array_equal(one_, other)


@pytest.mark.parametrize("isa", ["avx2", "sse2", "scalar", "neon"])
def test_other_instruction_sets(isa: str, target_of: Any, runs_here: Any) -> None:
    """Code for less capable processors of this machine's kind is run; that for others is only made."""
    target = target_of(isa, l2=256 * 1024) if isa == "avx2" else target_of(isa)
    for m, n, k, dtype in (
        (33, 47, 300, "float32"), (30, 70, 1700, "float64"), (2, 900, 600, "float32"), (3, 50, 210, "float32"),
    ):  # fmt: skip
        rng = np.random.default_rng(m)
        a, b = rng.integers(-4, 5, (m, k)).astype(dtype), rng.integers(-4, 5, (k, n)).astype(dtype)
        graph = tf.Graph()
        with graph.as_default():
            x, y = tf.placeholder(dtype, a.shape, name="a"), tf.placeholder(dtype, b.shape, name="b")
            z = tf.matmul(x, y)
            t = tf.matmul(x, tf.permute_dims(tf.reshape(y, (n, k)), [1, 0]))
        compiled = compile_graph(graph, feeds=[x, y], fetches=[z, t], target=target)
        if runs_here(isa):
            found = Executable(compiled.image, compiled.program, 1).run((a, b))
            assert found is not None
            np.testing.assert_array_equal(found[0], a @ b)
            np.testing.assert_array_equal(found[1], a @ b.reshape(n, k).T)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_narrow_vectors_pack_panel_by_panel(dtype: str, target_of: Any, runs_here: Any) -> None:
    """Where they would not stay in the first-level cache: operands that lie along either axis, computed ones, any number of rows and
    products, sums that are split; panels that are not full."""
    target = target_of("avx2", l2=256 * 1024)
    rng = np.random.default_rng(5)
    graph = tf.Graph()
    with graph.as_default():
        a, b, c = (tf.placeholder(dtype, shape, name=name) for name, shape in
                   (("a", (90, 1030)), ("b", (1030, 130)), ("c", (3, 130, 1030))))  # fmt: skip
        rows, depth = tf.placeholder(dtype, (None, 700), name="d"), tf.placeholder(dtype, (None, 90), name="e")
        fetches = [
            tf.matmul(a, b) + a[:, :1], tf.matmul(a, b * tf.constant(2, dtype)), tf.matmul(a, c, transpose_b=True),
            tf.matmul(rows, b[:700]), tf.matmul(depth[:, :50], depth, transpose_a=True),
        ]  # fmt: skip
    inputs = [a, b, c, rows, depth]
    compiled = compile_graph(graph, feeds=inputs, fetches=fetches, target=target)
    notes = [note for _, code in compiled.image.kernels.values() for note in code.schedule]
    assert sum("panel by panel" in note for note in notes) == 5, "\n".join(notes)
    assert any("panel by panel; sums in up to" in note for note in notes), notes
    if not runs_here("avx2"):
        return
    for count in (37, 5, 1, 0):
        shapes = [(90, 1030), (1030, 130), (3, 130, 1030), (count, 700), (count * 20, 90)]
        left, right, turned, d, e = arrays = [rng.integers(-4, 5, shape).astype(dtype) for shape in shapes]
        wanted = [
            left @ right + left[:, :1], left @ right * 2, left @ turned.swapaxes(1, 2), d @ right[:700], e[:, :50].T @ e,
        ]  # fmt: skip
        for threads in (1, 3):
            found = Executable(compiled.image, compiled.program, threads).run(tuple(arrays))
            assert found is not None
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one, other)


def test_tasks_that_pack_both_operands_have_all_rows(target_of: Any, runs_here: Any) -> None:
    """Gradients of weights, long sums of few rows that lie along the results: blocks are cut along the sum and the columns, and
    results are the same for any number of threads."""
    target = target_of("avx2", l2=512 * 1024)
    rng = np.random.default_rng(7)
    graph = tf.Graph()
    with graph.as_default():
        a, b = tf.placeholder("float32", (1200, 130), name="a"), tf.placeholder("float32", (1200, 700), name="b")
        product = tf.matmul(a, b, transpose_a=True)
        more = product + tf.constant(1, "float32")
    compiled = compile_graph(graph, feeds=[a, b], fetches=[product, more], target=target)
    (note,) = (note for _, code in compiled.image.kernels.values() for note in code.schedule)
    assert re.search("block 1[3-9][0-9] x .* packed along m, rhs packed panel by panel; sums in up to", note), note
    if not runs_here("avx2"):
        return
    arrays = rng.standard_normal((1200, 130)).astype("float32"), rng.standard_normal((1200, 700)).astype("float32")
    wanted = arrays[0].T.astype("float64") @ arrays[1]
    bits = []
    for threads in (1, 2, 3, 8):
        found = Executable(compiled.image, compiled.program, threads).run(arrays)
        assert found is not None
        np.testing.assert_allclose(found[0], wanted, atol=1e-3)
        np.testing.assert_array_equal(found[1], found[0] + 1)
        bits.append(found[0].tobytes())
    assert len(set(bits)) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_narrow_vectors_walk_images_along_their_rows(dtype: str, target_of: Any, runs_here: Any) -> None:
    """Gradients of filters: blocks of all rows and of some, sums that are split and not, panels that are not full, any batch; and
    results that lie along the tile's rows, as many as a vector has lanes or not."""
    target = target_of("avx2", l2=256 * 1024)
    rng = np.random.default_rng(6)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(dtype, (None, 17, 17, 15), name="x")
        fine, coarse = (tf.placeholder(dtype, (None, size, size, 40), name=f"d{size}") for size in (17, 9))
        w = tf.placeholder(dtype, (3, 3, 15, 40), name="w")
        one, two = (tf.nn.conv2d(x, w, stride, [(1, 1), (1, 1)]) for stride in (1, 2))
        gradients = [tf.gradients(tf.sum(z * d), [w])[0] for z, d in ((one, fine), (two, coarse))]
        images = tf.permute_dims(x, [0, 3, 1, 2])
        first = tf.nn.conv2d(images, w, 1, [(1, 1), (1, 1)], "NCHW") + tf.constant(1, dtype)
    inputs = [x, fine, coarse, w]
    compiled = compile_graph(graph, feeds=inputs, fetches=[*gradients, first], target=target)
    notes = [note for _, code in compiled.image.kernels.values() for note in code.schedule]
    chosen = [note for note in notes if "lhs in place, rhs packed panel by panel; sums in up to" in note]
    assert len(chosen) == 2, "\n".join(notes)
    if not runs_here("avx2"):
        return
    for count in (1, 7, 0):
        shapes = [(count, 17, 17, 15), (count, 17, 17, 40), (count, 9, 9, 40), (3, 3, 15, 40)]
        image, *ds, filters = arrays = [rng.integers(-4, 5, shape).astype(dtype) for shape in shapes]
        wide = np.pad(image, [(0, 0), (1, 1), (1, 1), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (1, 2))  # [batch, *places, channels, *window]
        wanted = [
            np.einsum("bxycuv,bxyo->uvco", windows[:, ::step, ::step], d) for step, d in zip((1, 2), ds, strict=True)
        ]
        wanted.append(np.einsum("bxycuv,uvco->boxy", windows, filters) + 1)
        for threads in (1, 3):
            found = Executable(compiled.image, compiled.program, threads).run(tuple(arrays))
            assert found is not None
            for one_, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one_, other)


CASES = {
    "matmul": lambda x, w: tf.matmul(x, w),
    "vector": lambda x, w: tf.matmul(x[:1], w),
    "columns": lambda x, w: tf.sum(tf.exp(x), axis=0),
    "all": lambda x, w: tf.sum(x * 1.1),
    "softmax": lambda x, w: tf.softmax(x, axis=-1),
    "leading_mean": lambda x, w: x - tf.mean(x, axis=0),
    "chain": lambda x, w: tf.tanh(x) * tf.sigmoid(x),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_for_any_number_of_threads(name: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((700, 1311), dtype=np.float32), rng.standard_normal((1311, 1500), dtype=np.float32)
    results = []
    for threads in (1, 2, 3, 8):
        graph = tf.Graph()
        with graph.as_default():
            x, w = tf.placeholder(tf.float32, a.shape, name="x"), tf.placeholder(tf.float32, b.shape, name="w")
            y = CASES[name](x, w)
            gradient = tf.gradients(tf.sum(y * y), [x])
        with tf.Session(graph, threads=threads) as session:
            results.append(session.run([y, *gradient], {x: a, w: b}))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert one.tobytes() == two.tobytes()
    wide = {"columns": np.exp(a.astype(float)).sum(0), "vector": a[:1].astype(float) @ b}
    if name in wide:
        np.testing.assert_allclose(results[0][0], wide[name], rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("m, k, n", [(1, 5, 40), (3, 7, 1), (5, 3, 7), (50, 33, 70), (64, 20, 32), (131, 450, 45)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_results_stored_turned_around(m: int, k: int, n: int, dtype: Any) -> None:
    """A product whose reader turns it around is stored that way, edges and open sizes included."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(-4, 5, (2, m, k)).astype(dtype), rng.integers(-4, 5, (k, n)).astype(dtype)
    for rows in (m, "m"):
        graph = tf.Graph()
        with graph.as_default():
            a = tf.placeholder(dtype, (2, rows, k))
            z = tf.matmul(a, tf.constant(y))
            swapped = tf.permute_dims(z, (0, 2, 1)) + np.arange(n, dtype=dtype)[:, None]
            outer = tf.permute_dims(tf.matmul(a, tf.constant(-y)), (1, 0, 2))
            last = tf.permute_dims(tf.matmul(a, tf.constant(y * 2)), (2, 1, 0))
        with tf.Session(graph, threads=2) as session:
            found = session.run([swapped, outer, last], {a: x})
        wanted = x @ y
        np.testing.assert_array_equal(found[0], wanted.transpose(0, 2, 1) + np.arange(n)[:, None])
        np.testing.assert_array_equal(found[1], -wanted.transpose(1, 0, 2))
        np.testing.assert_array_equal(found[2], 2 * wanted.transpose(2, 1, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize(("batch", "m", "n"), [(1, 3, 1), (3, 1, 3), (3, 5, 1), (2, 1, 1), (8, 2, 1), (1, 4, 4)])
def test_long_and_short_sums_of_an_open_length(batch: int, m: int, n: int, dtype: str) -> None:
    """A kernel holds several ways, and those that a run does not take leave its results alone."""
    rng = np.random.default_rng(m)
    graph = tf.Graph()
    with graph.as_default():
        a, b = tf.placeholder(dtype, [batch, m, None]), tf.placeholder(dtype, [batch, None, n])
        fetches = [tf.matmul(a, b), tf.matmul(a, b) + tf.constant(1, dtype)]
    with tf.Session(graph, threads=2) as session:
        for length in (0, 1, 63, 64, 200, 1025, 70_000):
            x = rng.integers(-3, 4, (batch, m, length)).astype(dtype)
            y = rng.integers(-3, 4, (batch, length, n)).astype(dtype)
            for found, more in zip(session.run(fetches, {a: x, b: y}), (0, 1), strict=True):
                np.testing.assert_array_equal(found, x @ y + np.asarray(more, dtype))
