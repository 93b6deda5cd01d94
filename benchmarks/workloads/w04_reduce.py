"""Reductions of a 4096x4096 float32 matrix: sums over the first axis, the last and both; argmax and running sum along the
last."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import numpy as numpy_peer
from peers import onnx as onnx_peer
from peers import pierian as pierian_peer
from peers import tensorflow as tf_peer
from peers import torch as torch_peer

from workloads import Case, Run

N = 4096


def inputs() -> dict[str, Any]:
    return {"x": np.random.default_rng(5).standard_normal((N, N), dtype=np.float32)}


def _model(op: str, axis: int | None, **attributes: Any) -> Any:
    """A model of one reduction: the axis is an input for some operators, an attribute for ArgMax."""

    def make(data: dict[str, Any]) -> bytes:
        from onnx.helper import make_node

        constants: dict[str, Any] = {}
        if op == "ArgMax":
            attributes["axis"] = axis
        elif op == "CumSum":
            constants["axis"] = np.int64(axis or 0)
        elif axis is not None:
            constants["axis"] = np.array([axis], np.int64)
        node = make_node(op, ["x", *constants], ["y"], **attributes)
        shape = [N, N] if op == "CumSum" else [] if axis is None else [N]
        dtype = np.int64 if op == "ArgMax" else np.float32
        return onnx_peer.model([node], data, {"y": (dtype, shape)}, constants)

    return make


def _numba_sum0(data: dict[str, Any]) -> Run:
    import numba

    def kernel(x: Any, out: Any) -> Any:
        part = x.shape[1] // 8
        for block in numba.prange(8):
            sums = out[block * part : (block + 1) * part]
            sums[:] = 0
            for i in range(x.shape[0]):
                for j in range(part):
                    sums[j] += x[i, block * part + j]
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty(N, np.float32)})


def _numba_sum1(data: dict[str, Any]) -> Run:
    import numba

    def kernel(x: Any, out: Any) -> Any:
        for i in numba.prange(x.shape[0]):
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += x[i, j]
            out[i] = total
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty(N, np.float32)})


def _numba_sum(data: dict[str, Any]) -> Run:
    import numba

    def kernel(x: Any) -> Any:
        total = np.float32(0)
        for i in numba.prange(x.shape[0]):
            row = np.float32(0)
            for j in range(x.shape[1]):
                row += x[i, j]
            total += row
        return total

    return numpy_peer.compiled(kernel, data)


def _numba_argmax(data: dict[str, Any]) -> Run:
    import numba

    def kernel(x: Any, out: Any) -> Any:
        for i in numba.prange(x.shape[0]):
            top = x[i, 0]
            for j in range(x.shape[1]):
                top = max(top, x[i, j])
            at = 0
            while x[i, at] != top:
                at += 1
            out[i] = at
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty(N, np.int64)})


def _numba_cumsum(data: dict[str, Any]) -> Run:
    import numba

    def kernel(x: Any, out: Any) -> Any:
        for i in numba.prange(x.shape[0]):
            total = np.float32(0)
            for j in range(x.shape[1]):
                total += x[i, j]
                out[i, j] = total
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty((N, N), np.float32)})


def _case(ours: Any, plain: Any, torch: Any, tf: Any, model: Any, numba: Any, tolerance: float, out: int) -> Case:
    """`plain` is for NumPy and JAX, and the reference."""
    return Case(
        inputs,
        {
            "pierian": lambda d: pierian_peer.graph(ours, d),
            "numpy": lambda d: numpy_peer.function(plain, d),
            "torch": lambda d: torch_peer.function(torch, d),
            "torch_compile": lambda d: torch_peer.function(torch, d, compile=True),
            "jax": lambda d: jax_peer.function(plain, d),
            "numba": numba,
            "tf_function": lambda d: tf_peer.function(tf, d),
            "tf_xla": lambda d: tf_peer.function(tf, d, xla=True),
            "ort": lambda d: onnx_peer.ort(model(d), d),
            "openvino": lambda d: onnx_peer.openvino(model(d), d),
        },
        lambda x: plain(np, x),
        tolerance,
        flops=float(N * N),
        bytes=4.0 * N * N + out,
    )


def _sum(axis: int | None, numba: Any) -> Case:
    return _case(
        lambda p, x: p.sum(x, axis=axis),
        lambda m, x: m.sum(x, axis),
        lambda t, x: t.sum(x) if axis is None else t.sum(x, axis),
        lambda tf, x: tf.reduce_sum(x, axis),
        _model("ReduceSum", axis, keepdims=0),
        numba,
        1e-4,
        4 if axis is None else 4 * N,
    )


CASES = {
    "sum_axis0": _sum(0, _numba_sum0),
    "sum_axis1": _sum(1, _numba_sum1),
    "sum_all": _sum(None, _numba_sum),
    "argmax_axis1": _case(
        lambda p, x: p.argmax(x, axis=1), lambda m, x: m.argmax(x, 1), lambda t, x: t.argmax(x, 1),
        lambda tf, x: tf.argmax(x, 1), _model("ArgMax", 1, keepdims=0), _numba_argmax, 0.0, 8 * N,
    ),
    "cumsum_axis1": _case(
        lambda p, x: p.cumsum(x, axis=1), lambda m, x: m.cumsum(x, 1), lambda t, x: t.cumsum(x, 1),
        lambda tf, x: tf.cumsum(x, 1), _model("CumSum", 1), _numba_cumsum, 1e-4, 4 * N * N,
    ),
}  # fmt: skip
