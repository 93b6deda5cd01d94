"""Convolution and pooling under TensorFlow's arguments, against plain loops over windows in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.kernel.program import launches
from pierian.compiler.lowering import lower
from pierian.compiler.options import CompileOptions
from pierian.compiler.pipeline import run_passes
from pierian.compiler.state import close_for_compilation


def padded(x: Any, window: Any, strides: Any, dilations: Any, padding: Any, fill: float) -> Any:
    pairs = [(0, 0)]
    for axis in range(2):
        size, reach = x.shape[1 + axis], (window[axis] - 1) * dilations[axis] + 1
        if padding == "SAME":
            total = max((-(-size // strides[axis]) - 1) * strides[axis] + reach - size, 0)
            pairs.append((total // 2, total - total // 2))
        else:
            pairs.append((0, 0) if padding == "VALID" else padding[axis])
    return np.pad(x, [*pairs, (0, 0)], constant_values=fill)


def slow_conv(x: Any, w: Any, strides: Any, padding: Any, dilations: Any, groups: int = 1) -> Any:
    x = padded(x.astype(np.float64), w.shape, strides, dilations, padding, 0)
    kh, kw, inside, outputs = w.shape
    sizes = [(x.shape[1 + a] - (w.shape[a] - 1) * dilations[a] - 1) // strides[a] + 1 for a in range(2)]
    y = np.zeros((x.shape[0], *sizes, outputs))
    for i, j in np.ndindex(*sizes):
        for u, v in np.ndindex(kh, kw):
            point = x[:, i * strides[0] + u * dilations[0], j * strides[1] + v * dilations[1]]
            for group in range(groups):
                mine = slice(group * outputs // groups, (group + 1) * outputs // groups)
                y[:, i, j, mine] += point[:, group * inside : (group + 1) * inside] @ w[u, v, :, mine]
    return y


CASES = [
    ((2, 9, 8, 5), (3, 3, 5, 7), (1, 1), "SAME", (1, 1), 1),
    ((1, 17, 12, 3), (7, 7, 3, 33), (2, 2), "SAME", (1, 1), 1),
    ((2, 9, 8, 4), (3, 2, 4, 40), (2, 1), "VALID", (1, 2), 1),
    ((1, 14, 14, 64), (1, 1, 64, 48), (1, 1), "VALID", (1, 1), 1),
    ((1, 15, 14, 16), (1, 1, 16, 48), (2, 2), "SAME", (1, 1), 1),
    ((3, 30, 31, 6), (3, 3, 2, 9), (1, 1), [(1, 2), (0, 3)], (1, 1), 3),
    ((1, 20, 18, 20), (3, 3, 1, 20), (1, 1), "SAME", (1, 1), 20),
    ((1, 20, 18, 20), (3, 3, 1, 40), (2, 2), "SAME", (1, 1), 20),
    ((1, 6, 7, 130), (3, 3, 130, 70), (1, 1), "SAME", (1, 1), 1),
    ((2, 40, 5, 9), (5, 3, 9, 1), (3, 2), "SAME", (2, 1), 1),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_conv2d(case: Any, layout: str) -> None:
    shape, window, strides, padding, dilations, groups = case
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal(shape, np.float32), rng.standard_normal(window, np.float32)
    wanted = slow_conv(x, w, strides, padding, dilations, groups)
    given = x if layout == "NHWC" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    results = []
    for batch in (shape[0], None):
        for threads in (1, 3):
            graph = tf.Graph()
            with graph.as_default():
                a = tf.placeholder("float32", (batch, *given.shape[1:]))
                y = tf.nn.conv2d(a, tf.constant(w), strides, padding, layout, dilations)
                z = tf.nn.relu(y + 1.0)  # an epilogue
            with tf.Session(graph, threads=threads) as session:
                found = session.run(z, {a: given})
            results.append(found if layout == "NHWC" else found.transpose(0, 2, 3, 1))
    for found in results:
        np.testing.assert_allclose(found, np.maximum(wanted + 1, 0), atol=2e-5 * np.abs(wanted).max())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[2], results[3])


@pytest.mark.parametrize("case", CASES)
def test_conv2d_gradients_against_the_linear_map(case: Any) -> None:
    """A convolution is linear in each operand, so <dz, conv(x, w)> = <dx, x> = <dw, w> holds exactly up to rounding."""
    shape, window, strides, padding, dilations, groups = case
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal(shape), rng.standard_normal(window)
    graph = tf.Graph()
    with graph.as_default():
        a, f = tf.placeholder("float64", shape), tf.placeholder("float64", window)
        y = tf.nn.conv2d(a, f, strides, padding, "NHWC", dilations)
        dz = rng.standard_normal(slow_conv(x, w, strides, padding, dilations, groups).shape)
        dx, dw = tf.gradients(tf.reduce_sum(y * tf.constant(dz)), [a, f])
    with tf.Session(graph, threads=2) as session:
        gx, gw = session.run([dx, dw], {a: x, f: w})
    for operand, gradient, other in ((x, gx, w), (w, gw, x)):
        direction = rng.standard_normal(operand.shape)
        moved = (direction, other) if operand is x else (other, direction)
        wanted = float(np.sum(dz * slow_conv(*moved, strides, padding, dilations, groups)))
        assert abs(float(np.sum(gradient * direction)) - wanted) <= 1e-10 * max(1.0, np.linalg.norm(gradient) * 30)


# Sizes, windows, strides, padding, dilations, groups: rests of all kinds, axes of one residue, residues without taps, narrow images.
STRIDED = [
    ((2, 16, 16, 8), (3, 3, 8, 6), (2, 2), [(1, 1), (1, 1)], (1, 1), 1),
    ((2, 15, 14, 8), (3, 3, 8, 20), (2, 2), [(1, 1), (1, 1)], (1, 1), 1),
    ((2, 15, 14, 8), (3, 3, 8, 20), (2, 2), [(0, 2), (2, 0)], (1, 1), 1),
    ((1, 17, 13, 3), (5, 4, 3, 16), (3, 2), [(2, 1), (1, 2)], (1, 1), 1),
    ((2, 9, 10, 8), (1, 1, 8, 5), (2, 2), "VALID", (1, 1), 1),
    ((2, 9, 10, 8), (1, 3, 8, 5), (2, 3), [(0, 0), (3, 3)], (1, 1), 1),
    ((2, 11, 9, 6), (3, 3, 3, 8), (2, 2), [(1, 1), (1, 1)], (1, 1), 2),
    ((2, 11, 9, 6), (3, 3, 6, 8), (2, 1), [(2, 2), (2, 2)], (2, 1), 1),
    ((2, 12, 12, 4), (3, 3, 4, 8), (1, 1), [(1, 1), (1, 1)], (1, 1), 1),
    ((1, 3, 2, 4), (2, 2, 4, 3), (4, 3), "SAME", (1, 1), 1),
]


# Arrays beyond the second-level cache, of which tiles fetch what later ones read.
FAR = [
    ((6, 65, 65, 32), (3, 3, 32, 40), (2, 2), "VALID", (1, 1), 1),
    ((5, 62, 63, 32), (3, 3, 32, 20), (2, 2), [(0, 2), (2, 1)], (1, 1), 1),
    ((4, 44, 50, 64), (3, 2, 64, 33), (1, 2), [(1, 1), (1, 1)], (1, 1), 1),
    ((3, 40, 45, 130), (2, 3, 130, 17), (3, 1), "VALID", (2, 1), 1),
    ((4, 70, 60, 48), (3, 3, 24, 32), (2, 2), [(1, 1), (1, 1)], (1, 1), 2),
    ((9, 160, 160, 3), (5, 5, 3, 32), (2, 3), "VALID", (1, 1), 1),
    ((7, 64, 66, 32), (4, 4, 32, 16), (4, 4), "VALID", (1, 1), 1),
]


@pytest.mark.parametrize("case", FAR)
@pytest.mark.parametrize("batch_is_open", [False, True])
def test_convolutions_of_far_arrays(case: Any, batch_is_open: bool) -> None:
    """Results and gradients of filters, the same bits for any number of threads."""
    shape, window, strides, padding, dilations, groups = case
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal(shape, np.float32), rng.standard_normal(window, np.float32)
    wanted = slow_conv(x, w, strides, padding, dilations, groups)
    dz = rng.standard_normal(wanted.shape, np.float32)
    wide, dw = padded(x.astype(np.float64), window, strides, dilations, padding, 0), np.zeros(window)
    for u, v in np.ndindex(*window[:2]):
        seen = wide[:, u * dilations[0] :: strides[0], v * dilations[1] :: strides[1]][:, : dz.shape[1], : dz.shape[2]]
        for group in range(groups):
            inside, outside = window[2], window[3] // groups
            mine = slice(group * outside, (group + 1) * outside)
            of_group = seen[..., group * inside : (group + 1) * inside]
            dw[u, v, :, mine] = np.tensordot(of_group, dz[..., mine].astype(np.float64), ((0, 1, 2), (0, 1, 2)))
    graph = tf.Graph()
    with graph.as_default():
        a = tf.placeholder("float32", (None if batch_is_open else shape[0], *shape[1:]))
        filters = tf.placeholder("float32", window)
        y = tf.nn.conv2d(a, filters, strides, padding, "NHWC", dilations)
        d = tf.placeholder("float32", y.shape)
        fetches = [tf.nn.relu(y + 1.0), tf.gradients(y, [filters], [d])[0]]
    results = []
    for threads in (1, 2, 3):
        with tf.Session(graph, threads=threads) as session:
            results.append(session.run(fetches, {a: x, filters: w, d: dz}))
    np.testing.assert_allclose(results[0][0], np.maximum(wanted + 1, 0), atol=2e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(results[0][1], dw, atol=2e-5 * np.abs(dw).max())
    for found in results[1:]:
        for one, first in zip(found, results[0], strict=True):
            np.testing.assert_array_equal(one, first)


@pytest.mark.parametrize("case", STRIDED)
def test_gradients_of_strided_convolutions(case: Any) -> None:
    """Sizes known, of any batch, and all open; two things done to the input's gradient; the same bits for any number of threads."""
    shape, window, strides, padding, dilations, groups = case
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal(shape), rng.standard_normal(window)
    dz = rng.standard_normal(slow_conv(x, w, strides, padding, dilations, groups).shape)
    wanted = np.zeros_like(x)
    for place in np.ndindex(*window):
        one = np.zeros_like(w)
        one[place] = w[place]
        wanted += _transposed(dz, one, place, shape, strides, padding, dilations, groups)
    results = []
    for sizes in (shape, (None, *shape[1:]), (None, None, None, shape[3])):
        graph = tf.Graph()
        with graph.as_default():
            a = tf.placeholder("float64", sizes)
            y = tf.nn.conv2d(a, tf.constant(w), strides, padding, "NHWC", dilations)
            d = tf.placeholder("float64", y.shape)
            (dx,) = tf.gradients(y, [a], [d])
            fetches = [dx * 2.0, tf.where(a > 0, dx, 0.0)]
        for threads in (1, 3):
            with tf.Session(graph, threads=threads) as session:
                results.append(session.run(fetches, {a: x, d: dz}))
    for found in results:
        np.testing.assert_allclose(found[0], 2 * wanted, atol=1e-11)
        np.testing.assert_allclose(found[1], np.where(x > 0, wanted, 0), atol=1e-11)
    for one, other in zip(results[::2], results[1::2], strict=True):
        for found, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(found, same)


def _transposed(
    dz: Any, w: Any, place: Any, shape: Any, strides: Any, padding: Any, dilations: Any, groups: int
) -> Any:
    """What one weight brings from the results back to the input."""
    u, v, channel, output = place
    wide = np.zeros_like(padded(np.zeros(shape), w.shape, strides, dilations, padding, 0))
    rows, columns = (
        slice(at * d, at * d + (count - 1) * s + 1, s)
        for at, d, s, count in zip((u, v), dilations, strides, dz.shape[1:3], strict=True)
    )
    channel += output // (w.shape[3] // groups) * w.shape[2]
    wide[:, rows, columns, channel] += dz[..., output] * w[place]
    total = [padded(np.ones(shape), w.shape, strides, dilations, padding, 0).any(axis=(0, 2 - i, 3)) for i in (0, 1)]
    first = [int(np.argmax(one)) for one in total]
    return wide[:, first[0] : first[0] + shape[1], first[1] : first[1] + shape[2]]


def test_a_strided_input_gradient_computes_what_is_wanted() -> None:
    """One product for each residue, none of a place in the padding, each stored where it belongs."""
    graph = tf.Graph()
    with graph.as_default():
        x, w = tf.placeholder("float32", (2, 8, 8, 4)), tf.placeholder("float32", (3, 3, 4, 8))
        y = tf.nn.conv2d(x, w, 2, [(1, 1), (1, 1)])
        dz = tf.placeholder("float32", y.shape)
        graph.set_outputs([tf.where(x > 0, one, 0.0) for one in tf.gradients(y, [x], [dz])])
    closed, _ = close_for_compilation(graph)
    portable = run_passes(closed, CompileOptions())
    products = [node for node in portable.nodes if node.op.name == "conv_general"]
    assert [node.output.shape for node in products] == [(2, 4, 4, 4)] * 4
    assert sum(node.op.name == "pad" for node in portable.nodes) == 1
    kinds = [launch.kernel.kind for launch in launches(lower(portable).steps)]
    assert kinds.count("contraction") == 4 and kinds.count("loop") == 2


def test_conv1d_and_transposed() -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((2, 12, 3)), rng.standard_normal((4, 3, 5))
    wanted = slow_conv(x[:, None], w[None], (1, 2), [(0, 0), (1, 1)], (1, 1))[:, 0]
    np.testing.assert_allclose(tf.nn.conv1d(x, w, 2, [(1, 1)]).numpy(), wanted, rtol=1e-12)
    # <z, conv(x)> = <conv_transpose(z), x>
    z, filters = rng.standard_normal((2, 5, 4, 6)), rng.standard_normal((3, 3, 2, 6))
    shape = (2, 10, 8, 2)
    back = tf.nn.conv2d_transpose(z, filters, shape, 2, "SAME").numpy()
    probe = rng.standard_normal(shape)
    forward = slow_conv(probe, filters, (2, 2), "SAME", (1, 1))
    assert back.shape == shape
    np.testing.assert_allclose(np.sum(back * probe), np.sum(z * forward), rtol=1e-10)


def test_depthwise_with_a_multiplier() -> None:
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((1, 6, 6, 3)), rng.standard_normal((3, 3, 3, 2))
    found = tf.nn.depthwise_conv2d(x, w, 1, "SAME").numpy()
    for channel in range(3):
        wanted = slow_conv(x[..., channel : channel + 1], w[:, :, channel : channel + 1], (1, 1), "SAME", (1, 1))
        np.testing.assert_allclose(found[..., 2 * channel : 2 * channel + 2], wanted, atol=1e-12)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_pooling(padding: str, layout: str) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 9, 8, 5)).astype(np.float32)
    wide = padded(x, (3, 2), (2, 2), (1, 1), padding, np.nan)
    sizes = ((wide.shape[1] - 3) // 2 + 1, (wide.shape[2] - 2) // 2 + 1)
    windows = np.stack([wide[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2] for i, j in np.ndindex(*sizes)], axis=1).reshape(
        2, *sizes, 6, 5
    )
    given = x if layout == "NHWC" else x.transpose(0, 3, 1, 2)
    back = (0, 1, 2, 3) if layout == "NHWC" else (0, 2, 3, 1)
    found = tf.nn.max_pool2d(given, (3, 2), 2, padding, layout).numpy().transpose(back)
    np.testing.assert_array_equal(found, np.nanmax(windows, axis=3))
    found = tf.nn.avg_pool2d(given, (3, 2), 2, padding, layout).numpy().transpose(back)
    np.testing.assert_allclose(found, np.nanmean(windows, axis=3), rtol=1e-5, atol=1e-6)


def test_pooling_gradients() -> None:
    rng = np.random.default_rng(6)
    x = tf.Variable(rng.permutation(2 * 6 * 6 * 3).reshape(2, 6, 6, 3).astype(np.float64))
    with tf.GradientTape(persistent=True) as tape:
        best = tf.reduce_sum(tf.nn.max_pool(x, 2))
        mean = tf.reduce_sum(tf.nn.avg_pool(x, 3, 3))
    hits = tape.gradient(best, x).numpy()
    assert hits.sum() == 2 * 9 * 3 and set(np.unique(hits)) == {0.0, 1.0}
    np.testing.assert_allclose(tape.gradient(mean, x).numpy(), np.full((2, 6, 6, 3), 1 / 9))


def test_what_does_not_fit_is_refused() -> None:
    x = np.zeros((1, 8, 8, 6), np.float32)
    with pytest.raises(tf.ShapeError, match="groups"):
        tf.nn.conv2d(x, np.zeros((3, 3, 4, 8), np.float32))
    with pytest.raises(tf.ShapeError, match="larger than the axis"):
        tf.nn.conv2d(x, np.zeros((9, 3, 6, 8), np.float32))
    with pytest.raises(tf.ShapeError, match="data format"):
        tf.nn.conv2d(x[0], np.zeros((3, 3, 6, 8), np.float32))
    for build in (tf.nn.max_pool, tf.nn.avg_pool):
        for steps in ((2, 0), (0, 1), (-1, 1), (2, -1)):
            for padding in ("VALID", "SAME"):
                with pytest.raises(tf.PierianError, match="from 1 on"):
                    build(x, *steps, padding)
    with pytest.raises(tf.ArgumentError, match="padding"):
        tf.nn.conv2d(x, np.zeros((3, 3, 6, 8), np.float32), padding="FULL")
    with pytest.raises(tf.ArgumentError, match="batch and channels"):
        tf.nn.conv2d(x, np.zeros((3, 3, 6, 8), np.float32), strides=(2, 1, 1, 1))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("ksize, strides", [(2, 2), (3, 2), ((3, 2), (1, 2)), (2, 3), (5, 2)])
def test_the_first_of_equal_maxima_has_the_gradient(ksize: Any, strides: Any, layout: str) -> None:
    """As in TensorFlow; sizes are of vectors' length and above, odd and even, so that lanes end everywhere, and windows overlap."""
    window, steps = ((v, v) if isinstance(v, int) else v for v in (ksize, strides))
    back = (0, 1, 2, 3) if layout == "NHWC" else (0, 2, 3, 1)
    for dtype, padding, size, channels in (
        ("float32", "SAME", 35, 1),
        ("float32", "VALID", 34, 2),
        ("float64", "SAME", 9, 17),
    ):
        rng = np.random.default_rng(size)
        x = rng.integers(0, 3, (2, 7, size, channels)).astype(dtype)
        x[0, 3, 5] = np.nan if dtype == "float32" else 2
        wide = padded(x, window, steps, (1, 1), padding, -np.inf)
        ahead = [
            max((-(-n // s) - 1) * s + w - n, 0) // 2 if padding == "SAME" else 0
            for n, s, w in zip(x.shape[1:3], steps, window, strict=True)
        ]
        places = [(n - w) // s + 1 for n, w, s in zip(wide.shape[1:3], window, steps, strict=True)]
        dz = rng.standard_normal((2, *places, channels)).astype(dtype)
        wanted = np.zeros(wide.shape)
        for b, i, j, c in np.ndindex(*dz.shape):
            seen = wide[b, i * steps[0] : i * steps[0] + window[0], j * steps[1] : j * steps[1] + window[1], c]
            u, v = np.unravel_index(np.argmax(seen), seen.shape)  # of equal ones, and of NaNs, the first
            wanted[b, i * steps[0] + u, j * steps[1] + v, c] += dz[b, i, j, c]
        wanted = wanted[:, ahead[0] : ahead[0] + 7, ahead[1] : ahead[1] + size]
        results = []
        graph = tf.Graph()
        with graph.as_default():
            a = tf.placeholder(dtype, x.shape if layout == "NHWC" else (None, channels, 7, size))
            y = tf.nn.max_pool(a, ksize, strides, padding, layout)
            there = np.argsort(back)
            given = tf.placeholder(dtype, y.shape)
            (dx,) = tf.gradients(y, [a], [given])
        for threads in (1, 3):
            with tf.Session(graph, threads=threads) as session:
                feeds = {a: np.ascontiguousarray(x.transpose(there)), given: np.ascontiguousarray(dz.transpose(there))}
                results.append(session.run(dx, feeds))
        assert results[0].tobytes() == results[1].tobytes()
        np.testing.assert_allclose(results[0].transpose(back), wanted, rtol=1e-6, atol=1e-6)


# As STRIDED, in two dimensions; depthwise, of windows that leave elements over or see padding only, of places fewer than strides.
TWICE = [
    ((2, 24, 7, 2), (3, 2, 1, 2), (4, 3), "SAME", (1, 1), 2),
    ((1, 15, 13, 17), (2, 3, 1, 17), (3, 3), "SAME", (1, 1), 17),
    ((3, 1, 4, 9), (1, 1, 1, 9), (4, 1), [(3, 0), (3, 3)], (1, 1), 9),
    ((2, 9, 1, 3), (1, 1, 3, 4), (2, 4), "VALID", (1, 1), 1),
    ((1, 11, 13, 6), (3, 3, 3, 8), (2, 3), [(0, 1), (2, 2)], (1, 2), 2),
    ((0, 5, 5, 1), (1, 1, 1, 3), (1, 1), [(0, 3), (1, 0)], (1, 1), 1),
]


@pytest.mark.parametrize("case", TWICE)
@pytest.mark.parametrize("sizes", ["known", "open"])
def test_gradients_of_gradients_of_convolutions(case: Any, sizes: str) -> None:
    """<dz, conv(x, w)> is linear in all three, so a derivative of one of its derivatives is another convolution."""
    shape, window, strides, padding, dilations, groups = case
    rng = np.random.default_rng(9)
    x, w, u, v = (rng.standard_normal(one) for one in (shape, window, shape, window))
    wanted = slow_conv(x, w, strides, padding, dilations, groups)
    dz = rng.standard_normal(wanted.shape)
    graph = tf.Graph()
    with graph.as_default():
        a, c = (
            tf.placeholder("float64", shape if sizes == "known" else (None, None, None, shape[3])) for _ in range(2)
        )
        f, e = tf.placeholder("float64", window), tf.placeholder("float64", window)
        y = tf.nn.conv2d(a, f, strides, padding, "NHWC", dilations)
        d = tf.placeholder("float64", y.shape)
        dx, dw = tf.gradients(y, [a, f], [d])
        by_dx, by_dw = tf.gradients(dx, [d, f], [c]), tf.gradients(dw, [a, d], [e])
    with tf.Session(graph, threads=2) as session:
        found = session.run([y, dx, dw, by_dx, by_dw], {a: x, f: w, d: dz, c: u, e: v})
        turned = session.run([dw, dx], {a: u, f: v, d: dz})
    np.testing.assert_allclose(found[0], wanted, atol=1e-11)
    for direction, gradient, moved in ((u, found[1], (u, w)), (v, found[2], (x, v))):
        one = np.sum(dz * slow_conv(*moved, strides, padding, dilations, groups))
        np.testing.assert_allclose(np.sum(gradient * direction), one, atol=1e-9)
    np.testing.assert_allclose(found[3][0], slow_conv(u, w, strides, padding, dilations, groups), atol=1e-11)
    np.testing.assert_allclose(found[4][1], slow_conv(x, v, strides, padding, dilations, groups), atol=1e-11)
    for one, other in zip((found[3][1], found[4][0]), turned, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)
