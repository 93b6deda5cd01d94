"""Convolutions by Winograd's filtering: right at every edge, as accurate as NumPy's product of windows, the same bits for any number
of threads, chosen where it pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.compiler.kernel.interpret import interpret_program
from pierian.compiler.schedule import winograd
from pierian.compiler.target.features import Target
from pierian.runtime.executable import Executable

# (batch, height, width, channels, outputs) and padding: tiles at the ends, short vectors, panels that are not full, many tiles.
CASES = [
    ((1, 7, 7, 64, 64), "SAME"),
    ((2, 9, 8, 33, 40), [(2, 1), (0, 3)]),
    ((3, 5, 31, 20, 70), "VALID"),
    ((1, 12, 13, 64, 17), "SAME"),
    ((1, 40, 6, 48, 9), "SAME"),
    ((2, 28, 28, 32, 64), "SAME"),
]


def windows(x: Any, padding: Any) -> Any:
    """[batch, height, width, 3 * 3 * channels]."""
    pads = {"SAME": [(1, 1)] * 2, "VALID": [(0, 0)] * 2}.get(padding, padding) if isinstance(padding, str) else padding
    seen = np.lib.stride_tricks.sliding_window_view(np.pad(x, [(0, 0), *pads, (0, 0)]), (3, 3), (1, 2))
    return seen.transpose(0, 1, 2, 4, 5, 3).reshape(*seen.shape[:3], -1)


def program(
    x: Any, w: Any, padding: Any, layout: str, constant: bool, open_: bool = False
) -> tuple[Any, list[Any], Any]:
    """A graph of a convolution with bias and activation, its feeds and result."""
    graph = tf.Graph()
    bias = np.linspace(-1, 1, w.shape[-1], dtype=x.dtype)
    with graph.as_default():
        shape = x.shape if layout == "NHWC" else (x.shape[0], x.shape[3], *x.shape[1:3])
        feeds = [
            tf.placeholder(
                x.dtype, [size if size == x.shape[3] else None for size in shape] if open_ else shape, name="x"
            )
        ]
        filters = tf.constant(w)
        if not constant:
            filters = tf.placeholder(w.dtype, w.shape, name="w")
            feeds.append(filters)
        y = tf.nn.conv2d(feeds[0], filters, 1, padding, layout)
        y = tf.maximum(y + (bias if layout == "NHWC" else bias[:, None, None]), 0)
        graph.set_outputs([y], ["y"])
    return graph, feeds, y


def arrays(shape: tuple[int, ...], dtype: Any, layout: str) -> tuple[Any, Any, Any]:
    batch, height, width, channels, outputs = shape
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((batch, height, width, channels)).astype(dtype)
    w = rng.standard_normal((3, 3, channels, outputs)).astype(dtype)
    return x, w, x if layout == "NHWC" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def notes(graph: Any, target: Target | None = None) -> str:
    return "\n".join(note for _, code in plan_graph(graph, target=target).kernels.values() for note in code.schedule)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, padding", CASES)
def test_every_edge(shape: Any, padding: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "WORTHWHILE", 9.0)
    for layout in ("NHWC", "NCHW"):
        x, w, given = arrays(shape, dtype, layout)
        product = windows(x.astype(float), padding) @ w.astype(float).reshape(-1, w.shape[-1])
        wanted = np.maximum(product + np.linspace(-1, 1, w.shape[-1], dtype=dtype), 0)
        for constant, open_ in ((True, False), (True, True), (False, False)):
            graph, feeds, y = program(x, w, padding, layout, constant, open_)
            # Channels first without padding: channels are not contiguous, and nothing else needs a copy that has them so.
            assert ("winograd 2 x 2" in notes(graph)) == (layout == "NHWC" or padding != "VALID")
            with tf.Session(graph, threads=2) as session:
                found = session.run(y, dict(zip(feeds, [given, w], strict=False)))
            found = found if layout == "NHWC" else found.transpose(0, 2, 3, 1)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=np.finfo(dtype).eps * 20 * np.abs(wanted).max())


def test_bits_do_not_depend_on_threads_and_gradients_are_those_of_the_sums() -> None:
    x, w, _ = arrays((2, 15, 14, 48, 48), np.float32, "NHWC")
    results = []
    for threads in (1, 2, 3, 8):
        graph = tf.Graph()
        with graph.as_default():
            a, b = tf.placeholder(tf.float32, x.shape, name="a"), tf.placeholder(tf.float32, w.shape, name="b")
            y = tf.nn.conv2d(a, b, 1, "SAME")
            dx, dw = tf.gradients(tf.sum(y * y), [a, b])
            graph.set_outputs([y, dx, dw], ["y", "dx", "dw"])
        if not results:
            assert notes(graph).count("winograd 2 x 2") == 2, "forward, and the input's gradient"
        with tf.Session(graph, threads=threads) as session:
            results.append(session.run([y, dx, dw], {a: x, b: w}))
    for other in results[1:]:
        assert all(one.tobytes() == two.tobytes() for one, two in zip(results[0], other, strict=True))
    dy = 2 * windows(x.astype(float), "SAME") @ w.astype(float).reshape(-1, 48)
    dx = windows(dy, "SAME") @ w[::-1, ::-1].astype(float).transpose(0, 1, 3, 2).reshape(-1, 48)
    dw = windows(x.astype(float), "SAME").reshape(-1, 9 * 48).T @ dy.reshape(-1, 48)
    for found, wanted in zip(results[0][1:], (dx, dw.reshape(w.shape)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("shape", [(1, 14, 14, 64, 64), (1, 7, 7, 512, 64), (2, 28, 28, 32, 32)])
def test_errors_are_within_those_of_numpy(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root mean square errors of float32 against float64 on activations and filters as networks have them: those of NumPy's product
    of windows at most, as nearly as its library's order of sums, another one on each machine, lets one say."""
    batch, height, width, channels, outputs = shape
    rng = np.random.default_rng(3)
    x = np.maximum(rng.standard_normal((batch, height, width, channels)), 0).astype(np.float32)
    w = (rng.standard_normal((3, 3, channels, outputs)) * np.sqrt(2 / 9 / channels)).astype(np.float32)
    flat, columns = w.reshape(-1, outputs), windows(x, "SAME")
    exact = columns.astype(float) @ flat.astype(float)
    errors = {"numpy": columns @ flat - exact}
    for name, limit in (("winograd", 9.0), ("direct", 0.0)):
        monkeypatch.setattr(winograd, "WORTHWHILE", limit)
        graph = tf.Graph()
        with graph.as_default():
            a = tf.placeholder(tf.float32, x.shape)
            y = tf.nn.conv2d(a, tf.constant(w), 1, "SAME")
        with tf.Session(graph) as session:
            errors[name] = session.run(y, {a: x}) - exact
    sizes = {name: np.sqrt(np.mean(error**2)) for name, error in errors.items()}
    assert sizes["winograd"] <= 1.1 * sizes["numpy"] and sizes["winograd"] <= 2 * sizes["direct"], sizes


def test_kernels_go_on_meaning_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter finds the same results, from filters as they are and from panels of transformed ones."""
    monkeypatch.setattr(winograd, "WORTHWHILE", 99.0)
    x, w, given = arrays((1, 4, 3, 5, 6), np.float64, "NHWC")
    for constant in (True, False):
        graph, feeds, _ = program(x, w, "SAME", "NHWC", constant)
        plan = plan_graph(graph)
        assert ("a packed constant" if constant else "transformed in every run") in notes(graph)
        (found,) = interpret_program(plan.program, [given, w][: len(feeds)])
        with tf.Session(graph) as session:
            native = session.run(graph.outputs[0], dict(zip(feeds, [given, w], strict=False)))
        np.testing.assert_allclose(found, native, rtol=1e-12, atol=1e-12)


def test_it_is_chosen_where_it_pays() -> None:
    cases = {(1, 56, 56, 64, 64): True, (1, 7, 7, 512, 512): True, (1, 56, 56, 3, 64): False, (1, 2, 2, 64, 64): False}
    for shape, pays in cases.items():
        x, w, _ = arrays(shape, np.float32, "NHWC")
        graph, _, _ = program(x, w, "SAME", "NHWC", pays)
        assert ("winograd 2 x 2" in notes(graph)) == pays, shape
        assert pays or "winograd would take" in notes(graph), shape


@pytest.mark.parametrize("isa", ["avx2", "sse2", "scalar", "neon"])
def test_other_instruction_sets(isa: str, target_of: Any, runs_here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code for less capable processors of this machine's kind is run; that for others is only made."""
    monkeypatch.setattr(winograd, "WORTHWHILE", 9.0)
    target = target_of(isa, l2=256 * 1024) if isa == "avx2" else target_of(isa)
    for layout, constant in (("NHWC", True), ("NCHW", False)):
        x, w, given = arrays((1, 9, 8, 20, 21), np.float32, layout)
        graph, feeds, y = program(x, w, "SAME", layout, constant)
        compiled = compile_graph(graph, feeds=feeds, fetches=[y], target=target)
        assert any("winograd" in note for _, code in compiled.image.kernels.values() for note in code.schedule)
        if runs_here(isa):
            results = Executable(compiled.image, compiled.program, 1).run((given, w)[: len(feeds)])
            assert results is not None
            product = windows(x.astype(float), "SAME") @ w.astype(float).reshape(-1, 21)
            wanted = np.maximum(product + np.linspace(-1, 1, 21), 0)
            result = results[0] if layout == "NHWC" else results[0].transpose(0, 2, 3, 1)
            np.testing.assert_allclose(result, wanted, rtol=0, atol=4e-6 * np.abs(wanted).max())
