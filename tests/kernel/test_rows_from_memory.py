"""Rows that come from memory: those read once are read four abreast, and those walked several times are asked for ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import compile_graph, plan_graph
from pierian.compiler.target.features import Target
from pierian.runtime.executable import Executable

# Caches so small that the arrays of these tests come from memory.
SMALL = {"l2": 8 << 10, "l3": 32 << 10}
Build = Callable[[Any], list[Any]]


def once(x: Any) -> list[Any]:
    return [tf.sum(x, axis=-1), tf.max(x, axis=-1), tf.argmax(x, axis=-1), tf.argmin(x, axis=-1)]


def often(x: Any) -> list[Any]:
    y = tf.softmax(x)
    (slope,) = tf.gradients(tf.sum(y * y), [x])
    return [y, tf.log_softmax(x), slope]


def normal(x: Any) -> list[Any]:
    centred = x - tf.mean(x, axis=-1, keepdims=True)
    return [centred * tf.rsqrt(tf.mean(centred * centred, axis=-1, keepdims=True) + 1e-3)]


def graph_of(build: Build, shape: tuple[Any, ...]) -> tuple[Any, Any, list[Any]]:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, shape, name="x")
        return graph, x, build(x)


def notes(build: Build, shape: tuple[Any, ...], target: Target) -> list[str]:
    graph, _, fetches = graph_of(build, shape)
    graph.set_outputs(fetches)
    return [note for _, code in plan_graph(graph, target=target).kernels.values() for note in code.schedule]


def run(build: Build, x: Any, target: Target, threads: int) -> list[Any]:
    _, given, fetches = graph_of(build, x.shape)
    compiled = compile_graph(given.graph, feeds=[given], fetches=fetches, target=target)
    found = Executable(compiled.image, compiled.program, threads).run((x,))
    assert found is not None
    return list(found)


def test_which_kernels(target_of: Any) -> None:
    for isa in ("avx2", "avx512"):
        small = target_of(isa, **SMALL)
        assert all("4 rows abreast" in note for note in notes(once, (300, 200), small))
        assert any("next rows asked for" in note for note in notes(often, (300, 200), small))
        assert any("next rows asked for" in note for note in notes(normal, (300, 200), small))
    for build in (once, often, normal):
        near = notes(build, (300, 200), target_of("avx2"))
        open_ = notes(build, (None, 200), small)
        few = notes(build, (20, 200), target_of("avx2", l2=64 << 10))
        assert not any("abreast" in note or "asked for" in note for note in near + open_ + few)
    assert not any("asked for" in note for note in notes(often, (300, 4000), small)), "two rows overflow the cache"


@pytest.mark.parametrize("isa", ["avx512", "avx2", "sse2", "neon"])
@pytest.mark.parametrize("shape", [(301, 200), (7, 43, 45), (1000, 17), (64, 1030)], ids=str)
def test_values(shape: tuple[int, ...], isa: str, target_of: Any, runs_here: Any) -> None:
    x = np.random.default_rng(7).integers(-9, 10, shape).astype(np.float32)
    x.reshape(-1, shape[-1])[[3, -1], [1, -1]] = np.nan, np.inf
    target = target_of(isa, **SMALL)
    if not runs_here(isa):
        assert notes(once, shape, target)
        return
    for build in (once, often, normal):
        found = [run(build, x, target, threads) for threads in (1, 2, 3)]
        for others in found[1:]:
            assert [one.tobytes() for one in found[0]] == [other.tobytes() for other in others]
        plain = run(build, x, target_of(isa), 1)
        for one, other in zip(found[0], plain, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    with np.errstate(invalid="ignore"):
        exact = [x.sum(-1), x.max(-1), x.argmax(-1), x.argmin(-1)]
    for one, other in zip(run(once, x, target, 2), exact, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
@pytest.mark.parametrize("shape", [(300, 200), (70, 5000), (9000,), (2, 70000)], ids=str)
def test_rows_of_two_arrays(shape: tuple[int, ...], isa: str, target_of: Any, runs_here: Any) -> None:
    """In wide vectors they are two streams as they are: no rows abreast, no parts of a row side by side. Of a stripe fewer rows each
    time."""
    graph = tf.Graph()
    with graph.as_default():
        x, y = (tf.placeholder(tf.float32, shape, name=name) for name in "xy")
        fetches = [tf.sum(x * y, axis=-1), tf.max(x - y, axis=-1), tf.sum(x * y, axis=0)]
    graph.set_outputs(fetches)
    target = target_of(isa, **SMALL)
    found = [note for _, code in plan_graph(graph, target=target).kernels.values() for note in code.schedule]
    assert any("abreast" in note for note in found) is (isa == "avx2" and shape[:-1] > (64,))
    if not runs_here(isa):
        return
    rng = np.random.default_rng(5)
    a, b = (rng.integers(-9, 10, shape).astype(np.float32) for _ in "xy")
    compiled = compile_graph(graph, feeds=[x, y], fetches=fetches, target=target)
    for threads in (1, 2, 3):
        results = Executable(compiled.image, compiled.program, threads).run((a, b))
        assert results is not None
        wanted = [(a * b).sum(-1), (a - b).max(-1), (a * b).sum(0)]
        for one, other in zip(results, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
@pytest.mark.parametrize("axes", [(0, 2, 3), (1, 3), (0, 3)], ids=str)
def test_rows_of_several_axes(axes: tuple[int, ...], isa: str, target_of: Any, runs_here: Any) -> None:
    """The elements of a channel lie in stretches of each image, and each pass over them has its own axes."""
    x = np.random.default_rng(3).standard_normal((6, 40, 5, 9)).astype(np.float32)

    def channels(x: Any) -> list[Any]:
        mean, variance = tf.mean(x, axis=axes, keepdims=True), tf.var(x, axis=axes, keepdims=True)
        return [tf.var(x, axis=axes), tf.std(tf.exp(x), axis=axes), (x - mean) * tf.rsqrt(variance + 1e-3)]

    target = target_of(isa, **SMALL)
    assert any("next rows asked for" in note for note in notes(channels, x.shape, target))
    if not runs_here(isa):
        return
    wide = x.astype(np.float64)
    normal = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-3)
    for threads in (1, 3):
        found = run(channels, x, target, threads)
        for one, other in zip(found, [wide.var(axes), np.exp(wide).std(axes), normal], strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("rows", [64, 67, 257])
def test_results_in_the_place_of_what_is_read(rows: int) -> None:
    """A point that is left over is stored once for each time that it is read."""
    x = np.random.default_rng(rows).integers(-9, 10, (rows, 4096)).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        total = tf.Variable(np.zeros(rows, np.float32))
        given = tf.placeholder(tf.float32, x.shape)
        more = total.assign(total + tf.sum(given, axis=1))
    for threads in (1, 2):
        with tf.Session(graph, threads=threads) as session:
            for count in range(1, 4):
                np.testing.assert_array_equal(session.run(more, {given: x}), count * x.sum(1))
