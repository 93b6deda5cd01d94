"""Paddings: what is shared by several of one value, and results of many shapes, narrow ones among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.compile import plan_graph
from pierian.compiler.graph.printer import print_graph
from pierian.compiler.options import CompileOptions
from pierian.compiler.pipeline import run_passes
from pierian.compiler.state import close_for_compilation

Sides = tuple[tuple[int, ...], tuple[int, ...]]


def padded(shape: list[Any], sides: list[Sides], build: Callable[[Any], Any] = lambda x: x) -> tf.Graph:
    graph = tf.Graph("padded")
    with graph.as_default():
        x = tf.placeholder(tf.float32, shape, name="x")
        value = build(x)
        graph.set_outputs([tf.pad(value, *side, value=0.5) for side in sides], [f"y{i}" for i in range(len(sides))])
    return graph


def test_text_of_an_image_with_few_channels(golden: Callable[[str, str], None]) -> None:
    sides: list[Sides] = [((0, 1, 1, 0), (0, 2, 1, 0)), ((0, 0, 1, 0), (0, 1, 1, 0))]
    closed, _ = close_for_compilation(padded(["n", 5, "w", 3], sides, lambda x: x / 255.0))
    golden("paddings.pir", print_graph(run_passes(closed, CompileOptions()), locations=False))


@pytest.mark.parametrize(
    ("shape", "before", "after"),
    [
        ((2, 5, 7, 3), (0, 1, 2, 0), (0, 2, 0, 0)),
        ((1, 5, 7, 15), (0, 40, 30, 0), (0, 0, 20, 0)),
        ((50, 3), (2, 0), (3, 0)),
        ((4, 2, 2), (1, 0, 0), (0, 0, 0)),
        ((0, 3), (2, 0), (3, 0)),
        ((7, 16), (1, 0), (1, 0)),
        ((7, 1), (1, 0), (1, 0)),
        ((7, 3), (1, 1), (1, 1)),
        ((7, 3), (0, 1), (0, 0)),
        ((3, 4, 5, 6), (1, 1, 1, 1), (0, 2, 1, 9)),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_results_of_many_shapes(
    shape: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...], threads: int
) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sides = list(zip(before, after, strict=True))
    for given in (list(shape), ["n", *shape[1:]]):
        for build, wanted in ((lambda v: v, x), (lambda v: tf.abs(v) * 2.0, np.abs(x) * 2)):
            graph = padded(given, [(before, after)], build)
            with tf.Session(graph, threads=threads) as session:
                found = session.run(graph.outputs, {"x": x})[0]
            np.testing.assert_array_equal(found, np.pad(wanted, sides, constant_values=0.5))


def test_pixels_of_a_padded_image_are_copied_row_by_row() -> None:
    """Not colour by colour: within the margin, an image's rows are long ones."""
    graph = padded([2, 50, 70, 3], [((0, 1, 2, 0), (0, 1, 2, 0))])
    (code,) = (code for _, code in plan_graph(graph).kernels.values())
    assert any(note.startswith("pointwise over 2 x 50 x 210") for note in code.schedule)
