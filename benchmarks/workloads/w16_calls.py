"""What a call costs: five operators on 8 x 16 numbers, a NumPy array in and out. session: a program prepared beforehand; function:
a Python function that was traced, found again by its arguments; eager: operator by operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import onnx as onnx_peer
from peers import pierian as pierian_peer
from peers import tensorflow as tf_peer
from peers import threads
from peers import torch as torch_peer

from workloads import Case, Run

SHAPE = (8, 16)
Data = dict[str, Any]


def inputs() -> Data:
    return {"x": np.random.default_rng(16).standard_normal(SHAPE, dtype=np.float32)}


def _numpy(x: Any) -> Any:
    return np.tanh(np.exp(x * x.dtype.type(-0.5)) + x.dtype.type(1)).sum(1)


def _with(p: Any) -> Callable[[Any], Any]:
    """The operators of a package that has TensorFlow's names."""
    return lambda x: p.reduce_sum(p.tanh(p.exp(x * -0.5) + 1.0), axis=1)


def _jax(data: Data) -> Run:
    jax = jax_peer.setup()
    call, x = jax.jit(lambda x: jax.numpy.tanh(jax.numpy.exp(x * -0.5) + 1.0).sum(1)), data["x"]
    return lambda: np.asarray(call(x))


def _torch(data: Data, compile: bool) -> Run:
    torch, x = torch_peer.setup(), data["x"]

    def five(x: Any) -> Any:
        return torch.tanh(torch.exp(x * -0.5) + 1.0).sum(1)

    call = torch.compile(five) if compile else five
    return lambda: call(torch.from_numpy(x)).numpy()


def _tensorflow(data: Data, traced: bool, xla: bool = False) -> Run:
    tf, x = tf_peer.setup(), data["x"]
    five = _with(tf)
    call = tf.function(five, jit_compile=xla, autograph=False) if traced else five
    return lambda: call(tf.constant(x)).numpy()  # faster than handing over the array itself


def _pierian(data: Data, traced: bool) -> Run:
    import pierian as tf

    x, five = data["x"], _with(tf)
    if traced:
        call = tf.function(five)
        return lambda: call(x).numpy()
    return lambda: five(tf.constant(x)).numpy()


def _run(data: Data) -> Run:
    """Through `Session.run`, which looks at what it is asked for."""
    import pierian as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, SHAPE, name="x")
        y = _with(tf)(x)
    session, array = tf.Session(graph, threads=threads()), data["x"]
    return lambda: session.run(y, {x: array})


def _tf1(data: Data) -> Run:
    return tf_peer.session(lambda tf, given: (_with(tf)(given["x"]), []), data)


def _model(data: Data) -> bytes:
    from onnx import helper

    nodes = [
        helper.make_node("Mul", ["x", "half"], ["a"]), helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]), helper.make_node("Tanh", ["c"], ["d"]),
        helper.make_node("ReduceSum", ["d", "axis"], ["y"], keepdims=0),
    ]  # fmt: skip
    constants = {"half": np.float32(-0.5), "one": np.float32(1), "axis": np.array([1], np.int64)}
    return onnx_peer.model(nodes, data, {"y": (np.float32, SHAPE[:1])}, constants)


def _ort(data: Data) -> Run:
    """`InferenceSession.run`, with arrays handed over at each call."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    session = onnxruntime.InferenceSession(_model(data), options, providers=["CPUExecutionProvider"])
    names, feeds = ["y"], {"x": data["x"]}
    return lambda: session.run(names, feeds)[0]


COMPILED: dict[str, Callable[[Data], Run]] = {
    "numpy": lambda d: lambda x=d["x"]: _numpy(x),
    "ort": _ort,
    "openvino": lambda d: onnx_peer.openvino(_model(d), d),
    "jax": _jax,
    "torch_compile": lambda d: _torch(d, True),
    "tf_function": lambda d: _tensorflow(d, True),
    "tf_xla": lambda d: _tensorflow(d, True, True),
}


def _case(peers: dict[str, Callable[[Data], Run]]) -> Case:
    return Case(inputs, peers, _numpy, 1e-5)


CASES = {
    "session": _case({"pierian": lambda d: pierian_peer.graph(lambda p, x: _with(p)(x), d), **COMPILED}),
    "run": _case({"pierian": _run, "tf1": _tf1}),
    "function": _case({"pierian": lambda d: _pierian(d, True), **COMPILED}),
    "eager": _case(
        {
            "pierian": lambda d: _pierian(d, False),
            "numpy": COMPILED["numpy"],
            "torch": lambda d: _torch(d, False),
            "tf_eager": lambda d: _tensorflow(d, False),
        }
    ),
}
