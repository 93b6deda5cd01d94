"""A chain of n distinct small operators (add, multiply, tanh on 1000 floats): first build and compile, then run."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import numpy as numpy_peer
from peers import onnx as onnx_peer
from peers import pierian as pierian_peer
from peers import tensorflow as tf_peer
from peers import torch as torch_peer

from workloads import Case


def inputs() -> dict[str, Any]:
    return {"x": np.random.default_rng(8).standard_normal(1000).astype(np.float32)}


def _number(i: int) -> float:
    return 0.001 * i if i % 3 == 0 else 1.0 - 1e-5 * i


def _chain(n: int) -> Any:
    def chain(m: Any, x: Any) -> Any:
        for i in range(n):
            if i % 3 == 0:
                x = x + _number(i)
            elif i % 3 == 1:
                x = x * _number(i)
            else:
                x = m.tanh(x)
        return x

    return chain


def _model(n: int, data: dict[str, Any]) -> bytes:
    from onnx.helper import make_node

    nodes, constants, last = [], {}, "x"
    for i in range(n):
        given = [last]
        if i % 3 < 2:
            constants[f"c{i}"] = np.float32(_number(i))
            given.append(f"c{i}")
        last = f"v{i}"
        nodes.append(make_node(("Add", "Mul", "Tanh")[i % 3], given, [last]))
    return onnx_peer.model(nodes, data, {last: (np.float32, [1000])}, constants)


def _case(n: int) -> Case:
    """Peers that would take minutes to compile, or all memory (JAX from 1000 on), are left out of the longer chains."""
    chain = _chain(n)
    peers = {
        "pierian": lambda d: pierian_peer.graph(chain, d),
        "numpy": lambda d: numpy_peer.function(chain, d),
        "ort": lambda d: onnx_peer.ort(_model(n, d), d),
        "tf1": lambda d: tf_peer.session(lambda tf, given: (chain(tf, given["x"]), []), d),
    }
    if n <= 1000:
        peers["openvino"] = lambda d: onnx_peer.openvino(_model(n, d), d)
        peers["tf_function"] = lambda d: tf_peer.function(chain, d)
    if n <= 100:
        peers["jax"] = lambda d: jax_peer.function(chain, d)
        peers["torch"] = lambda d: torch_peer.function(chain, d)
        peers["tf_xla"] = lambda d: tf_peer.function(chain, d, xla=True)
    return Case(inputs, peers, lambda x: chain(np, x), 1e-3, flops=1000.0 * n, bytes=8000.0)


CASES = {f"n{n}": _case(n) for n in (100, 1000, 10000)}
