"""Depthwise convolution and pooling in both layouts, in tiles: edges, strides, open sizes, threads, other instruction sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph
from pierian.compiler.frozen import replace
from pierian.compiler.target.features import Target, host
from tests.front.test_convolution import padded

# shape [batch, height, width, channels], window, strides, padding, dilations
CASES = [
    ((1, 16, 32, 3), (3, 3), (1, 1), "SAME", (1, 1)),
    ((2, 13, 37, 5), (3, 3), (1, 1), "SAME", (1, 1)),
    ((2, 23, 50, 20), (3, 3), (2, 2), "SAME", (1, 1)),
    ((1, 30, 97, 4), (5, 3), (3, 4), [(3, 0), (1, 2)], (1, 1)),
    ((1, 9, 40, 18), (7, 7), (1, 1), "SAME", (1, 1)),
    ((3, 19, 70, 2), (3, 2), (1, 3), "VALID", (2, 1)),
    ((1, 20, 35, 7), (3, 3), (1, 1), "SAME", (2, 3)),
    ((2, 5, 3, 33), (3, 3), (2, 1), [(5, 4), (6, 1)], (1, 1)),
    ((1, 1, 64, 6), (1, 9), (1, 2), "SAME", (1, 1)),
    ((1, 17, 40, 18), (7, 7), (2, 2), "SAME", (1, 1)),
    ((2, 14, 37, 5), (5, 5), (2, 2), [(2, 1), (0, 3)], (1, 1)),
    ((1, 20, 35, 7), (5, 5), (1, 1), "SAME", (2, 1)),
]


def by_taps(x: Any, w: Any, strides: Any, padding: Any, dilations: Any) -> Any:
    """Channels last, in float64: every tap of the window at all places."""
    x = padded(x.astype(np.float64), w.shape, strides, dilations, padding, 0)
    sizes = [(x.shape[1 + a] - (w.shape[a] - 1) * dilations[a] - 1) // strides[a] + 1 for a in range(2)]
    total = np.zeros((x.shape[0], *sizes, x.shape[3]))
    for tap in np.ndindex(*w.shape[:2]):
        rows, columns = (
            slice(tap[a] * dilations[a], tap[a] * dilations[a] + (sizes[a] - 1) * strides[a] + 1, strides[a])
            for a in range(2)
        )
        total += x[:, rows, columns] * w[(*tap, slice(None), 0)]
    return total


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_depthwise(case: Any, layout: str) -> None:
    shape, window, strides, padding, dilations = case
    channels = shape[-1]
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal(shape, np.float32), rng.standard_normal((*window, channels, 1), np.float32)
    wanted = by_taps(x, w, strides, padding, dilations) + np.arange(channels)
    first = layout == "NCHW"
    given = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x
    bias = np.arange(channels, dtype=np.float32).reshape((channels, 1, 1) if first else (channels,))
    open_sizes = (None, channels, None, None) if first else (None, None, None, channels)
    results = []
    for sizes in (given.shape, open_sizes):
        graph = tf.Graph()
        with graph.as_default():
            a = tf.placeholder("float32", sizes)
            y = tf.nn.depthwise_conv2d(a, tf.constant(w), strides, padding, layout, dilations)
            z = tf.nn.relu(y + bias)
        for threads in (1, 2, 3, 8):
            with tf.Session(graph, threads=threads) as session:
                results.append(session.run(z, {a: given}))
    for found in results:
        found_last = found.transpose(0, 2, 3, 1) if first else found
        np.testing.assert_allclose(found_last, np.maximum(wanted, 0), atol=2e-5 * np.abs(wanted).max())
        np.testing.assert_array_equal(found, results[0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_depthwise_gradients_against_the_linear_map(case: Any, layout: str) -> None:
    shape, window, strides, padding, dilations = case
    channels = shape[-1]
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal(shape), rng.standard_normal((*window, channels, 1))

    dz = rng.standard_normal(by_taps(x, w, strides, padding, dilations).shape)
    first = layout == "NCHW"
    there, back = ((0, 3, 1, 2), (0, 2, 3, 1)) if first else ((0, 1, 2, 3), (0, 1, 2, 3))
    graph = tf.Graph()
    with graph.as_default():
        a, f = tf.placeholder("float64", x.transpose(there).shape), tf.placeholder("float64", w.shape)
        y = tf.nn.depthwise_conv2d(a, f, strides, padding, layout, dilations)
        dx, dw = tf.gradients(tf.reduce_sum(y * tf.constant(dz.transpose(there))), [a, f])
    with tf.Session(graph, threads=2) as session:
        gx, gw = session.run([dx, dw], {a: np.ascontiguousarray(x.transpose(there)), f: w})
    for gradient, is_dx in ((gx.transpose(back), True), (gw, False)):
        direction = rng.standard_normal(gradient.shape)
        operands = (direction, w) if is_dx else (x, direction)
        wanted = float(np.sum(dz * by_taps(*operands, strides, padding, dilations)))
        assert abs(float(np.sum(gradient * direction)) - wanted) <= 1e-10 * max(1.0, np.linalg.norm(gradient) * 30)


def _targets() -> list[Target]:
    """Instruction sets this machine has beside its best, and others to compile for."""
    best = host()
    if best.isa not in ("avx512", "avx2"):
        return []
    none = ",".join(f"-{name}" for name in ("avx512f", "avx512vl", "avx512dq", "avx512bw"))
    return [
        replace(best, isa="avx2", vector_bytes=32, vector_registers=16, cpu="haswell", features=f"+avx2,+fma,{none}"),
        replace(best, isa="sse2", vector_bytes=16, vector_registers=16, cpu="x86-64", features="", has_fma=False, has_masks=False),
    ]  # fmt: skip


@pytest.mark.parametrize("target", _targets(), ids=lambda target: target.isa)
def test_other_instruction_sets_agree(target: Target, monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("PIERIAN_CACHE", "off")
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((2, 6, 21, 19), np.float32), rng.standard_normal((3, 3, 6, 1), np.float32)
    graph = tf.Graph()
    with graph.as_default():
        a = tf.placeholder("float32", x.shape)
        strided = tf.nn.depthwise_conv2d(a, tf.constant(w), 2, "SAME", "NCHW")
        plain = tf.nn.depthwise_conv2d(a, tf.constant(w), 1, "SAME", "NCHW")
        pooled = tf.nn.max_pool(a, 3, 2, "SAME", "NCHW")
    with tf.Session(graph) as session:
        wanted = session.run([strided, plain, pooled], {a: x})
    monkeypatch.setattr("pierian.compiler.compile.host", lambda: target)
    with tf.Session(graph) as session:
        found = session.run([strided, plain, pooled], {a: x})
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_cross_targets_compile() -> None:
    graph = tf.Graph()
    with graph.as_default():
        a = tf.placeholder("float32", (None, 6, 21, 19))
        y = tf.nn.depthwise_conv2d(a, np.ones((3, 3, 6, 1), np.float32), 2, "SAME", "NCHW")
        graph.set_outputs([y])
    for name, bits, registers in (("aarch64-unknown-linux-gnu", 128, 32), ("riscv64-unknown-linux-gnu", 64, 16)):
        target = Target(name, "generic" if "aarch" in name else "generic-rv64", "", "neon" if "aarch" in name else "scalar",
                        bits // 8, registers, "aarch" in name, False)  # fmt: skip
        assert len(compile_graph(graph, target=target).image.objects[0]) > 1000
