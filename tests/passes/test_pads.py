"""Paddings: the text after both passes, and results of many shapes with and without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf
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


def pads(graph: tf.Graph) -> list[tuple[int, ...]]:
    """What is put before each axis by the paddings that are left after all passes."""
    closed, _ = close_for_compilation(graph)
    nodes = run_passes(closed, CompileOptions()).nodes
    return [tuple(node.attributes["before"]) for node in nodes if node.op.name == "pad"]


def test_text_of_an_image_with_few_channels(golden: Callable[[str, str], None]) -> None:
    sides: list[Sides] = [((0, 1, 1, 0), (0, 2, 1, 0)), ((0, 0, 1, 0), (0, 1, 1, 0))]
    closed, _ = close_for_compilation(padded(["n", 5, "w", 3], sides, lambda x: x / 255.0))
    golden("paddings.pir", print_graph(run_passes(closed, CompileOptions()), locations=False))


@pytest.mark.parametrize(
    ("shape", "before", "after", "found"),
    [
        ((2, 5, 7, 3), (0, 1, 2, 0), (0, 2, 0, 0), (0, 1, 6)),
        ((1, 5, 7, 15), (0, 40, 30, 0), (0, 0, 20, 0), (0, 40, 450)),
        ((50, 3), (2, 0), (3, 0), (6,)),
        ((4, 2, 2), (1, 0, 0), (0, 0, 0), (4,)),
        ((0, 3), (2, 0), (3, 0), (6,)),
        ((7, 16), (1, 0), (1, 0), (1, 0)),  # a whole line
        ((7, 1), (1, 0), (1, 0), (1, 0)),
        ((7, 3), (1, 1), (1, 1), (1, 1)),
        ((7, 3), (0, 1), (0, 0), (0, 1)),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_results_are_those_of_the_padding_as_it_was(
    shape: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...], found: tuple[int, ...], threads: int
) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    wanted = np.pad(x, list(zip(before, after, strict=True)), constant_values=0.5)
    for given in (list(shape), ["n", *shape[1:]]):
        graph = padded(given, [(before, after)])
        assert pads(graph) == [found]
        for options in (CompileOptions(), CompileOptions(disable=("merge-pads",))):
            with tf.Session(graph, threads=threads, options=options) as session:
                np.testing.assert_array_equal(session.run(graph.outputs, {"x": x})[0], wanted)


def test_arrays_read_in_another_order_keep_their_axes() -> None:
    sides: list[Sides] = [((0, 1, 0), (0, 1, 0))]
    assert pads(padded([4, 5, 3], sides, lambda x: tf.exp(x) * 2.0)) == [(0, 3)]
    assert pads(padded([4, 5, 3], sides, lambda x: x - tf.constant([1.0, 2.0, 3.0]))) == [(0, 1, 0)]
    assert pads(padded([5, 4, 3], sides, lambda x: tf.permute_dims(x, [1, 0, 2]))) == [(0, 1, 0)]
    assert pads(padded([4, 5, 3], sides, lambda x: tf.cumsum(x, axis=1))) == [(0, 1, 0)]


def test_gradients_pass_through_few_channels() -> None:
    x = np.random.default_rng(1).standard_normal((2, 6, 5, 3)).astype(np.float32)
    f = np.random.default_rng(2).standard_normal((3, 3, 3, 4)).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        image = tf.placeholder(tf.float32, ["n", 6, 5, 3], name="x")
        y = tf.nn.conv2d(image, tf.constant(f), 1, "SAME")
        graph.set_outputs([y, *tf.gradients(tf.sum(y * y), [image])], ["y", "dx"])
    found = []
    for options in (CompileOptions(), CompileOptions(disable=("merge-pads",))):
        with tf.Session(graph, options=options) as session:
            found.append(session.run(graph.outputs, {"x": x}))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
