"""The programs of the introductory TensorFlow article, with the values they print."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import pierian as tf

DATA = Path(__file__).resolve().parents[2] / "examples" / "data" / "student_scores.csv"


def scores() -> tuple[tf.Tensor, tf.Tensor]:
    with DATA.open() as file:
        rows = list(csv.DictReader(file))
    hours = tf.cast(np.array([float(row["Hours"]) for row in rows]), tf.float32)
    return hours, tf.cast(np.array([float(row["Scores"]) for row in rows]), tf.float32)


def test_constants_and_variables() -> None:
    x = tf.constant(3, shape=[2, 3])
    assert str(x) == "tf.Tensor(\n[[3 3 3]\n [3 3 3]], shape=(2, 3), dtype=int32)"
    y = tf.Variable([1, 2, 3, 4, 5, 6], dtype=tf.float32)
    expected = (
        "<tf.Variable 'Variable:0' shape=(6,) dtype=float32, numpy=array([1., 2., 3., 4., 5., 6.], dtype=float32)>"
    )
    assert repr(y) == expected


def test_addition() -> None:
    assert (
        repr(tf.add(tf.constant([1]), tf.constant([2])))
        == "<tf.Tensor: shape=(1,), dtype=int32, numpy=array([3], dtype=int32)>"
    )
    assert tf.add(tf.constant([1, 2]), tf.constant([3, 4])).numpy().tolist() == [4, 6]
    assert (tf.constant([[1, 2], [3, 4]]) + tf.constant([[5, 6], [7, 8]])).numpy().tolist() == [[6, 8], [10, 12]]


def test_products() -> None:
    a0, a34, a43 = tf.ones(1), tf.ones([2, 4]), tf.ones([4, 2])
    assert repr(tf.multiply(a0, a0)) == "<tf.Tensor: shape=(1,), dtype=float32, numpy=array([1.], dtype=float32)>"
    assert tf.matmul(a43, a34).numpy().tolist() == [[2.0] * 4] * 4


@pytest.mark.parametrize(("at", "slope"), [(-1.0, -2.0), (1.0, 2.0), (0.0, 0.0)])
def test_gradient(at: float, slope: float) -> None:
    x = tf.Variable(at)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    assert tape.gradient(y, x).numpy() == slope


def test_reshape_of_random_images() -> None:
    gray = tf.random.uniform([2, 2], maxval=255, dtype="int32")
    assert gray.dtype is tf.int32
    assert tf.reshape(gray, [2 * 2, 1]).numpy().tolist() == [[v] for v in gray.numpy().reshape(-1)]
    color = tf.random.uniform([2, 2, 3], maxval=255, dtype="int32")
    flat = tf.reshape(color, [2 * 2, 3])
    assert flat.shape == (4, 3)
    assert flat.numpy().min() >= 0 and flat.numpy().max() < 255


def test_loss_function() -> None:
    hours, targets = scores()
    assert repr(hours).startswith("<tf.Tensor: shape=(25,), dtype=float32, numpy=array([2.5, 5.1, 3.2,")

    def loss_function(intercept: float, slope: float) -> tf.Tensor:
        return tf.keras.losses.mse(targets, intercept + hours * slope) / 100

    assert loss_function(0.5, 8).numpy() == pytest.approx(1.6664679, rel=1e-6)
    assert loss_function(1.2, 10.06).numpy() == pytest.approx(0.29396924, rel=1e-6)


DIVIDED = [
    0.3908655, 0.30124974, 0.29731604, 0.29053184, 0.28906164, 0.28888658, 0.28886303, 0.28886697, 0.28884828, 0.28882876,
]  # fmt: skip
PRINTED = [39.09423, 30.12893, 29.732178, 29.052313, 28.905817, 28.888535, 28.886223, 28.886658, 28.884825, 28.882883]


@pytest.mark.parametrize(
    ("divisor", "losses", "final"),
    [(100, DIVIDED, (2.4898365, 9.774861)), (1, PRINTED, (2.4898534, 9.774894))],
)
def test_training(divisor: int, losses: list[float], final: tuple[float, float]) -> None:
    hours, targets = scores()
    intercept = tf.Variable([1.0], np.float32)
    slope = tf.Variable([10.0], np.float32)
    opt = tf.keras.optimizers.Adam(0.5)

    def loss_function() -> tf.Tensor:
        loss = tf.keras.losses.mse(targets, intercept + hours * slope)
        return loss / divisor if divisor != 1 else loss

    found = []
    for i in range(100):
        opt.minimize(loss_function, var_list=[intercept, slope])
        if i % 10 == 0:
            found.append(float(loss_function()))
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    np.testing.assert_allclose([intercept.numpy()[0], slope.numpy()[0]], final, rtol=2e-5)
