"""One Adam step (learning rate 0.5) of a two-parameter linear regression on 25 points, Python call included. const: data in the
program; feed: data handed over each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import numpy as numpy_peer
from peers import tensorflow as tf_peer
from peers import threads
from peers import torch as torch_peer

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


def _numba(data: dict[str, Any]) -> Run:
    def step(x: Any, y: Any, p: Any, m: Any, v: Any, powers: Any) -> Any:
        loss, d0, d1 = np.float32(0), np.float32(0), np.float32(0)
        for i in range(len(x)):
            error = p[0] + p[1] * x[i] - y[i]
            loss += error * error
            d0 += error
            d1 += error * x[i]
        powers[0] *= np.float32(BETA1)
        powers[1] *= np.float32(BETA2)
        rate = np.float32(RATE) * np.sqrt(np.float32(1) - powers[1]) / (np.float32(1) - powers[0])
        for k, total in enumerate((d0, d1)):
            g = total * np.float32(2 / 2500)
            m[k] += (g - m[k]) * np.float32(1 - BETA1)
            v[k] += (g * g - v[k]) * np.float32(1 - BETA2)
            p[k] -= rate * m[k] / (np.sqrt(v[k]) + np.float32(EPSILON))
        return loss * np.float32(1 / 2500)

    zeros = {name: np.zeros(2, np.float32) for name in ("m", "v")}
    state = {"p": np.array([1.0, 10.0], np.float32), **zeros, "powers": np.ones(2, np.float32)}
    return numpy_peer.compiled(step, {**data, **state}, parallel=False)


def _loss(p: Any, x: Any, y: Any) -> Any:
    return ((p[0] + p[1] * x - y) ** 2).mean() / 100


def _jax(data: dict[str, Any], fed: bool) -> Run:
    step, state = jax_peer.adam(_loss, np.array([1.0, 10.0], np.float32), RATE)
    if fed:
        return jax_peer.training(step, state, list(data.values()))
    arrays = [jax_peer.setup().numpy.asarray(one) for one in data.values()]
    return jax_peer.training(lambda state: step(state, *arrays), state)


def _torch(data: dict[str, Any], fed: bool) -> Run:
    """The whole step as one function; autograd and an optimizer object cost several times as much at this size."""
    torch = torch_peer.setup()
    given = list(data.values())
    tensors = [torch.from_numpy(one) for one in given]

    def step(p: Any, m: Any, v: Any, powers: Any, x: Any, y: Any) -> Any:
        g, loss = torch.func.grad_and_value(_loss)(p, x, y)
        m.lerp_(g, 1 - BETA1)
        v.lerp_(g * g, 1 - BETA2)
        powers.mul_(betas)
        p.sub_(RATE * torch.sqrt(1 - powers[1]) / (1 - powers[0]) * m / (torch.sqrt(v) + EPSILON))
        return loss

    betas = torch.tensor([BETA1, BETA2])
    state = [torch.tensor([1.0, 10.0]), torch.zeros(2), torch.zeros(2), torch.ones(2)]
    call = torch.compile(step)
    if fed:
        return lambda: call(*state, *(torch.from_numpy(one) for one in given))
    return lambda: call(*state, *tensors)


def _tensorflow(data: dict[str, Any], fed: bool, xla: bool) -> Run:
    start = {"p": np.array([1.0, 10.0], np.float32)}

    def loss_of(tf: Any, v: Any, x: Any, y: Any) -> Any:
        return tf.reduce_mean((v["p"][0] + v["p"][1] * x - y) ** 2) / 100

    arrays = list(data.values())
    if fed:
        return tf_peer.training(loss_of, start, arrays, tf_peer.adam(RATE), 2, xla, fed=True)
    return tf_peer.training(lambda tf, v: loss_of(tf, v, *arrays), start, [], tf_peer.adam(RATE), 2, xla)


def _tf1(data: dict[str, Any], fed: bool) -> Run:
    def build(tf: Any, given: dict[str, Any]) -> Any:
        b, w = tf.Variable([1.0]), tf.Variable([10.0])
        x, y = (given or data)["x"], (given or data)["y"]
        loss = tf.reduce_mean(tf.square(b + w * x - y)) / 100
        return loss, [tf.train.AdamOptimizer(RATE, epsilon=EPSILON).minimize(loss)]

    return tf_peer.session(build, data if fed else {})


def reference(x: Any, y: Any) -> list[Any]:
    """The losses of the first three steps."""
    p = np.array([1, 10], x.dtype)
    optimizer = numpy_peer.Adam([p], RATE)
    losses = []
    for _ in range(3):
        error = p[0] + p[1] * x - y
        losses.append((error * error).mean() / 100)
        optimizer.apply([np.array([error.mean(), (error * x).mean()]) * x.dtype.type(2 / 100)])
    return losses


def _case(fed: bool) -> Case:
    return Case(
        inputs,
        {
            "pierian": lambda d: _pierian(d, fed),
            "numpy": _numpy,
            "torch_compile": lambda d: _torch(d, fed),
            "jax": lambda d: _jax(d, fed),
            "numba": _numba,
            "tf_function": lambda d: _tensorflow(d, fed, False),
            "tf_xla": lambda d: _tensorflow(d, fed, True),
            "tf1": lambda d: _tf1(d, fed),
        },
        reference,
        1e-5,
        floor=("numba",),
        calls=3,
    )


CASES = {"const": _case(False), "feed": _case(True)}
