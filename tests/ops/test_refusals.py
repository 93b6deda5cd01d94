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


@pytest.mark.parametrize("build", [tf.concat, tf.stack])
def test_nothing_to_join(build: Callable[[Any], Any]) -> None:
    with tf.Graph().as_default(), pytest.raises(tf.ArgumentError, match="needs a tensor"):
        build([])
