"""Gather 8192 rows of 64 from a table of 100,000 rows; the gradient of that as a dense array; the same rows added to the table in
place."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import numpy as numpy_peer
from peers import onnx as onnx_peer
from peers import pierian as pierian_peer
from peers import tensorflow as tf_peer
from peers import threads
from peers import torch as torch_peer

from workloads import Case, Run, Viewed

ROWS, WIDTH, COUNT = 100_000, 64, 8192


def _inputs(*names: str) -> Any:
    def make() -> dict[str, Any]:
        rng = np.random.default_rng(12)
        data = {
            "table": rng.standard_normal((ROWS, WIDTH), dtype=np.float32),
            "indices": rng.integers(0, ROWS, COUNT).astype(np.int64),
            "updates": rng.standard_normal((COUNT, WIDTH), dtype=np.float32),
        }
        return {name: data[name] for name in names}

    return make


# --- gather -----------------------------------------------------------------------------------------------------------


def _numba_gather(data: dict[str, Any]) -> Run:
    import numba

    def kernel(table: Any, indices: Any, out: Any) -> Any:
        for i in numba.prange(len(indices)):
            for j in range(WIDTH):
                out[i, j] = table[indices[i], j]
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty((COUNT, WIDTH), np.float32)})


def _onnx_gather(data: dict[str, Any]) -> bytes:
    from onnx.helper import make_node

    return onnx_peer.model(
        [make_node("Gather", ["table", "indices"], ["y"])], data, {"y": (np.float32, [COUNT, WIDTH])}
    )


# --- its gradient -----------------------------------------------------------------------------------------------------


def _dense(m: Any, indices: Any, updates: Any) -> Any:
    result = m.zeros((ROWS, WIDTH), updates.dtype)
    m.add.at(result, indices, updates)
    return result


def _torch_dense(torch: Any, indices: Any, updates: Any) -> Any:
    return torch.zeros((ROWS, WIDTH)).index_add_(0, indices, updates)


def _jax_dense(jnp: Any, indices: Any, updates: Any) -> Any:
    return jnp.zeros((ROWS, WIDTH), np.float32).at[indices].add(updates)


def _tf_dense(tf: Any, indices: Any, updates: Any) -> Any:
    return tf.math.unsorted_segment_sum(updates, indices, ROWS)


def _numba_dense(data: dict[str, Any]) -> Run:
    import numba

    def kernel(indices: Any, updates: Any, out: Any) -> Any:
        for i in numba.prange(ROWS):
            for j in range(WIDTH):
                out[i, j] = np.float32(0)
        for i in range(len(indices)):
            for j in range(WIDTH):
                out[indices[i], j] += updates[i, j]
        return out

    return numpy_peer.compiled(kernel, {**data, "out": np.empty((ROWS, WIDTH), np.float32)})


def _pierian_dense(p: Any, indices: Any, updates: Any) -> Any:
    return p.scatter_add(p.zeros((ROWS, WIDTH), p.float32), indices, updates)


# --- in place: each call adds to what the calls before have left -------------------------------------------------------


def _pierian_update(data: dict[str, Any]) -> Run:
    import pierian as tf

    graph = tf.Graph()
    with graph.as_default():
        indices = tf.placeholder(tf.int64, [COUNT], name="indices")
        updates = tf.placeholder(tf.float32, [COUNT, WIDTH], name="updates")
        table = tf.Variable(data["table"], name="table")
        update = tf.group(table.assign(tf.scatter_add(table, indices, updates)))
    session = tf.Session(graph, threads=threads())
    call = session.make_callable([update], [indices, updates])
    return Viewed(lambda: call(data["indices"], data["updates"]), lambda: session.run(table))


def _torch_update(data: dict[str, Any], compile: bool) -> Run:
    torch = torch_peer.setup()
    table = torch.from_numpy(data["table"].copy())
    given = [torch.from_numpy(data[name]) for name in ("indices", "updates")]

    def update(table: Any, indices: Any, updates: Any) -> None:
        table.index_add_(0, indices, updates)

    call = torch.compile(update) if compile else update
    return Viewed(lambda: call(table, *given), lambda: table)


def _jax_update(data: dict[str, Any]) -> Run:
    jax = jax_peer.setup()
    given = [jax.numpy.asarray(data[name]) for name in ("indices", "updates")]
    update = jax.jit(lambda table, indices, updates: table.at[indices].add(updates), donate_argnums=0)
    held = [jax.numpy.array(data["table"])]

    def call() -> None:
        held[0] = jax.block_until_ready(update(held[0], *given))

    return Viewed(call, lambda: held[0])


def _tf_update(data: dict[str, Any]) -> Run:
    tf = tf_peer.setup()
    table = tf.Variable(data["table"])

    @tf.function(autograph=False)
    def update(indices: Any, updates: Any) -> None:
        tf.raw_ops.ResourceScatterAdd(resource=table.handle, indices=indices, updates=updates)

    call = tf_peer.concrete(update, tf.constant(data["indices"]), tf.constant(data["updates"]))
    return Viewed(call, table.read_value)


def _numba_update(data: dict[str, Any]) -> Run:
    def kernel(table: Any, indices: Any, updates: Any) -> None:
        for i in range(len(indices)):
            for j in range(WIDTH):
                table[indices[i], j] += updates[i, j]

    table = data["table"].copy()
    return Viewed(numpy_peer.compiled(kernel, {**data, "table": table}, parallel=False), lambda: table)


def _numpy_update(data: dict[str, Any]) -> Run:
    table = data["table"].copy()
    return Viewed(lambda: np.add.at(table, data["indices"], data["updates"]), lambda: table)


def _updated(table: Any, indices: Any, updates: Any) -> Any:
    """The table after three calls."""
    result = table.copy()
    for _ in range(3):
        np.add.at(result, indices, updates)
    return result


PART = 4.0 * COUNT * WIDTH
CASES = {
    "gather": Case(
        _inputs("table", "indices"),
        {
            "pierian": lambda d: pierian_peer.graph(lambda p, table, indices: p.gather(table, indices), d),
            "numpy": lambda d: numpy_peer.function(lambda m, table, indices: m.take(table, indices, 0), d),
            "torch": lambda d: torch_peer.function(lambda t, table, indices: t.index_select(table, 0, indices), d),
            "torch_compile": lambda d: torch_peer.function(lambda t, table, indices: table[indices], d, compile=True),
            "jax": lambda d: jax_peer.function(lambda m, table, indices: table[indices], d),
            "numba": _numba_gather,
            "tf_function": lambda d: tf_peer.function(lambda tf, table, indices: tf.gather(table, indices), d),
            "ort": lambda d: onnx_peer.ort(_onnx_gather(d), d),
            "openvino": lambda d: onnx_peer.openvino(_onnx_gather(d), d),
        },
        lambda table, indices: table[indices],
        0.0,
        bytes=2 * PART + 8 * COUNT,
    ),
    "grad_dense": Case(
        _inputs("indices", "updates"),
        {
            "pierian": lambda d: pierian_peer.graph(_pierian_dense, d),
            "numpy": lambda d: numpy_peer.function(_dense, d),
            "torch": lambda d: torch_peer.function(_torch_dense, d),
            "torch_compile": lambda d: torch_peer.function(_torch_dense, d, compile=True),
            "jax": lambda d: jax_peer.function(_jax_dense, d),
            "numba": _numba_dense,
            "tf_function": lambda d: tf_peer.function(_tf_dense, d),
        },
        lambda indices, updates: _dense(np, indices, updates),
        1e-6,
        flops=float(COUNT * WIDTH),
        bytes=4.0 * ROWS * WIDTH + 3 * PART + 8 * COUNT,
    ),
    "update_inplace": Case(
        _inputs("table", "indices", "updates"),
        {
            "pierian": _pierian_update,
            "numpy": _numpy_update,
            "torch": lambda d: _torch_update(d, False),
            "torch_compile": lambda d: _torch_update(d, True),
            "jax": _jax_update,
            "numba": _numba_update,
            "tf_function": _tf_update,
        },
        _updated,
        1e-6,
        flops=float(COUNT * WIDTH),
        bytes=3 * PART + 8 * COUNT,
        calls=3,
    ),
}
