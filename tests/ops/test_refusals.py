"""Arguments that make no tensor are refused where the operator is built, with an error of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pierian as tf


@pytest.mark.parametrize(
    "build",
    [
        lambda x: tf.tile(x, (-1, 1)), lambda x: tf.one_hot(tf.constant([1]), -3), lambda x: tf.one_hot(tf.constant([1]), "a"),
        lambda x: tf.eye(-2), lambda x: tf.linspace(0.0, 1.0, -2),
        lambda x: tf.scan(lambda s, _: (s, s), tf.constant(1.0), None, length=-3),
        lambda x: tf.scan(lambda s, _: (s, s), tf.constant(1.0), None, length=2.5),
        lambda x: tf.pad(x, before=(0, 1.5), after=(0, 0)),
        lambda x: tf.nn.conv1d(x[None], np.ones((1, 3, 1), np.float32), 1, [(1, 1.5)]),
    ],
)  # fmt: skip
def test_sizes_are_integers_that_are_not_negative(build: Callable[[Any], Any]) -> None:
    with tf.Graph().as_default(), pytest.raises(tf.ShapeError, match="not negative"):
        build(tf.placeholder("float32", [2, 3]))


@pytest.mark.parametrize("axis", [1.5, "a", ["a"], [0.5]], ids=str)
@pytest.mark.parametrize(
    "build",
    [
        tf.reduce_sum, tf.argmax, tf.cumsum, tf.softmax, tf.squeeze, tf.expand_dims, tf.flip,
        lambda x, axis: tf.concat([x, x], axis), lambda x, axis: tf.stack([x, x], axis), lambda x, axis: tf.gather(x, [0], axis),
    ],
)  # fmt: skip
def test_axes_are_integers(build: Callable[..., Any], axis: Any) -> None:
    with tf.Graph().as_default(), pytest.raises(tf.ArgumentError, match="an axis is an integer"):
        build(tf.placeholder("float32", [1, 3]), axis=axis)


@pytest.mark.parametrize(
    "arguments",
    [
        {"strides": "a"}, {"strides": [1, "b"]}, {"strides": 1.5}, {"dilations": None}, {"padding": 3}, {"padding": [[1, 2], "a"]},
        {"padding": [["a", "b"], [0, 0]]},
    ],
    ids=str,
)  # fmt: skip
def test_windows_take_integers(arguments: dict[str, Any]) -> None:
    with tf.Graph().as_default(), pytest.raises(tf.ArgumentError):
        tf.nn.conv2d(tf.placeholder("float32", [1, 5, 5, 1]), np.ones((3, 3, 1, 1), np.float32), **arguments)


def test_axes_of_other_libraries() -> None:
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(tf.reduce_sum(x, axis=np.int64(-1)), x.sum(-1))
    np.testing.assert_array_equal(tf.reduce_sum(x, axis=np.array([0, 1])), x.sum())
    assert tf.expand_dims(x, np.int32(0)).shape == (1, 2, 3)


@pytest.mark.parametrize("build", [tf.concat, tf.stack])
def test_nothing_to_join(build: Callable[[Any], Any]) -> None:
    with tf.Graph().as_default(), pytest.raises(tf.ArgumentError, match="needs a tensor"):
        build([])
