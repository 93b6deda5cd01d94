"""One Adam step of a two-parameter linear regression on 25 points, Python call included."""

from __future__ import annotations

from typing import Any

import numpy as np
from frameworks import threads

from workloads import Case, Run

RATE, BETA1, BETA2, EPSILON = 0.5, 0.9, 0.999, 1e-7


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    x = rng.uniform(1, 9, 25).astype(np.float32)
    return {"x": x, "y": (2.5 + 9.8 * x + rng.normal(0, 5, 25)).astype(np.float32)}


def _pierian(data: dict[str, Any], fed: bool) -> Run:
    import pierian as tf

    graph = tf.Graph()
    with graph.as_default():
        if fed:
            x, y = tf.placeholder(tf.float32, [25], name="x"), tf.placeholder(tf.float32, [25], name="y")
        else:
            x, y = tf.constant(data["x"]), tf.constant(data["y"])
        b, w = tf.Variable([1.0]), tf.Variable([10.0])
        loss = tf.reduce_mean(tf.square(b + w * x - y)) / 100
        train = tf.keras.optimizers.Adam(RATE).minimize(loss, var_list=[b, w])
    session = tf.Session(graph, threads=threads())
    if fed:
        call = session.make_callable([loss, train], [x, y])
        return lambda: call(data["x"], data["y"])[0]
    call = session.make_callable([loss, train])
    return lambda: call()[0]


def _numpy(data: dict[str, Any]) -> Run:
    x, y = data["x"], data["y"]
    state = {"p": np.array([1.0, 10.0], np.float32), "m": np.zeros(2, np.float32), "v": np.zeros(2, np.float32), "t": 0}
    gradient = np.empty(2, np.float32)

    def step() -> Any:
        p, m, v = state["p"], state["m"], state["v"]
        error = p[0] + p[1] * x - y
        loss = error.dot(error) / 2500
        gradient[0] = error.sum() * (2 / 2500)
        gradient[1] = error.dot(x) * (2 / 2500)
        state["t"] += 1
        t = state["t"]
        m += (gradient - m) * np.float32(1 - BETA1)
        v += (gradient * gradient - v) * np.float32(1 - BETA2)
        rate = np.float32(RATE * (1 - BETA2**t) ** 0.5 / (1 - BETA1**t))
        p -= rate * m / (np.sqrt(v) + np.float32(EPSILON))
        return loss

    return step


def _jax(data: dict[str, Any]) -> Run:
    import jax
    import jax.numpy as jnp

    x, y = jnp.asarray(data["x"]), jnp.asarray(data["y"])

    @jax.jit
    def step(state: Any) -> Any:
        p, m, v, t = state

        def loss_of(p: Any) -> Any:
            return jnp.mean((p[0] + p[1] * x - y) ** 2) / 100

        loss, g = jax.value_and_grad(loss_of)(p)
        t = t + 1
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        rate = RATE * jnp.sqrt(1 - BETA2**t) / (1 - BETA1**t)
        return loss, (p - rate * m / (jnp.sqrt(v) + EPSILON), m, v, t)

    state = [(jnp.array([1.0, 10.0]), jnp.zeros(2), jnp.zeros(2), jnp.float32(0))]

    def run() -> Any:
        loss, state[0] = step(state[0])
        return jax.block_until_ready(loss)

    return run


def _first_loss(x: Any, y: Any) -> Any:
    return np.mean((1.0 + 10.0 * x.astype(np.float64) - y) ** 2) / 100


CASES = {
    "const": Case(inputs, {"pierian": lambda d: _pierian(d, False), "numpy": _numpy, "jax": _jax}, _first_loss, 1e-5),
    "feed": Case(inputs, {"pierian": lambda d: _pierian(d, True), "numpy": _numpy, "jax": _jax}, _first_loss, 1e-5),
}
