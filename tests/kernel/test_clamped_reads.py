"""Padding and concatenation along the axis that lanes lie on: vectors inside, outside and across the ends of what they read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf


def run(build: Any, *arrays: Any, open_sizes: bool = False) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        shapes = [tuple(f"n{i}{j}" for j in range(a.ndim)) if open_sizes else a.shape for i, a in enumerate(arrays)]
        inputs = [
            tf.placeholder(a.dtype, shape, name=f"x{i}")
            for i, (a, shape) in enumerate(zip(arrays, shapes, strict=True))
        ]
        result = build(*inputs)
    with tf.Session(graph, threads=2) as session:
        return session.run(result, {f"x{i}": a for i, a in enumerate(arrays)})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("widths", [(1, 1, 1), (40, 3, 70), (16, 64, 5), (130, 257, 33)], ids=str)
def test_concatenation(dtype: str, widths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2 if dtype == "bool" else 100, (3, width)).astype(dtype) for width in widths]
    wanted = np.concatenate(parts, 1)
    np.testing.assert_array_equal(run(lambda *x: tf.concat(list(x), axis=1), *parts), wanted)
    if dtype != "bool":
        doubled = run(lambda *x: tf.concat([one + one for one in x], axis=1) - 1, *parts)
        np.testing.assert_array_equal(doubled, wanted + wanted - 1)


@pytest.mark.parametrize("amounts", [(0, 3), (3, 0), (17, 40), (64, 1), (1, 300)], ids=str)
@pytest.mark.parametrize("width", [1, 15, 16, 100, 259])
def test_padding_and_its_sum(width: int, amounts: tuple[int, int]) -> None:
    x = np.random.default_rng(1).integers(-50, 50, (4, width)).astype(np.float32)
    before, after = (1, amounts[0]), (0, amounts[1])
    wanted = np.pad(x, [(1, 0), amounts], constant_values=2)
    np.testing.assert_array_equal(run(lambda v: tf.pad(v, before=before, after=after, value=2.0), x), wanted)
    padded = run(lambda v: tf.sum(tf.pad(v, before=before, after=after, value=2.0), axis=1), x, open_sizes=True)
    np.testing.assert_array_equal(padded, wanted.sum(1))
    turned = run(lambda v: tf.pad(tf.flip(v, axis=1), before=before, after=after) * 2.0, x)
    np.testing.assert_array_equal(turned, np.pad(x[:, ::-1], [(1, 0), amounts]) * 2)
