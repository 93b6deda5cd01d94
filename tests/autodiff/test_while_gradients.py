"""Gradients of loops whose number of steps is not known: chunks and segments, whole and in part, loops inside, second gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.autodiff.whiles import CHUNK, SNAPSHOTS
from pierian.runtime.profile import Profile

X, W = np.array([0.3, -0.8, 0.5]), np.array([0.93, -0.9, 0.85])
ONE_CHUNK = CHUNK * SNAPSHOTS


def loop(n: Any, x: Any, w: Any, nested: bool) -> Any:
    def simple(i: Any, a: Any) -> Any:
        return i + 1, a * w + 0.1 * tf.sin(a)

    def around(i: Any, a: Any) -> Any:
        _, a = tf.while_loop(lambda j, _: j < i % 3, simple, [tf.constant(0, tf.int64), a])
        return i + 1, 0.9 * a + 0.1 * tf.cos(a) * w

    return tf.while_loop(lambda i, _: i < n, around if nested else simple, [tf.constant(0, tf.int64), x])[1]


def program(nested: bool, second: bool = False) -> tuple[Any, list[Any], list[Any]]:
    """A session, fetches (a number and its gradients), and what is fed."""
    with tf.Graph().as_default() as graph:
        n = tf.placeholder("int64", (), name="n")
        x, w = (tf.placeholder("float64", (3,), name=name) for name in "xw")
        y = tf.reduce_sum(tf.square(loop(n, x, w, nested)))
        if second:
            first = tf.gradients(y, [x, w])
            y = tf.reduce_sum(first[0] * tf.constant([1.0, 2.0, 3.0], tf.float64)) + tf.reduce_sum(first[1])
        gradients = tf.gradients(y, [x, w])
    return tf.Session(graph), [y, *gradients], [n, x, w]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_any_number_of_steps_against_differences(nested: bool, second: bool) -> None:
    session, fetches, feeds = program(nested, second)
    call = session.make_callable(fetches, feeds)
    long = () if second or nested else (ONE_CHUNK, ONE_CHUNK + 1, 2 * ONE_CHUNK + 5)
    for steps in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, *long):
        _, *gradients = call(np.array(steps), X, W)
        for number, gradient in enumerate(gradients):
            for k in range(3):
                ends = []
                for sign in (1, -1):
                    moved = [X.copy(), W.copy()]
                    moved[number][k] += sign * 1e-6
                    ends.append(call(np.array(steps), *moved)[0])
                slope = (ends[0] - ends[1]) / 2e-6
                np.testing.assert_allclose(gradient[k], slope, rtol=1e-5, atol=1e-7, err_msg=f"{steps} steps")


def test_kernels_run_in_proportion_to_the_steps() -> None:
    session, fetches, feeds = program(nested=False)
    runs = []
    for steps in (0, ONE_CHUNK // 2, ONE_CHUNK):
        profile = Profile()
        session.run(fetches, dict(zip(feeds, (np.array(steps), X, W), strict=True)), profile=profile)
        runs.append(sum(kernel.runs for kernel in profile.kernels))
    assert runs[2] - runs[0] < 2.1 * (runs[1] - runs[0]) and runs[2] < 40 * ONE_CHUNK
