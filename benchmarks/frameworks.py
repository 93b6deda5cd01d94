"""How each peer is set up: threads, arrays in and out, compiled variants of one function."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def threads() -> int:
    """How many threads this worker may use."""
    return int(os.environ.get("BENCH_THREADS", "1"))


def pierian_graph(
    build: Callable[..., Any], inputs: dict[str, Any], constants: Sequence[str] = ()
) -> Callable[[], Any]:
    """A graph with one placeholder for each input (those in `constants` stand in the graph), as a prepared call."""
    import pierian

    graph = pierian.Graph()
    with graph.as_default():
        tensors = {
            name: pierian.constant(array)
            if name in constants
            else pierian.placeholder(array.dtype, array.shape, name=name)
            for name, array in inputs.items()
        }
        results = build(pierian, **tensors)
    session = pierian.Session(graph, threads=threads())
    fed = [name for name in inputs if name not in constants]
    outputs = list(results) if isinstance(results, (list, tuple)) else [results]
    call = session.make_callable(outputs, [tensors[name] for name in fed])
    arrays = [inputs[name] for name in fed]
    return lambda: call(*arrays)


def numpy_function(function: Callable[..., Any], inputs: dict[str, Any]) -> Callable[[], Any]:
    return lambda: function(np, **inputs)


def torch_function(function: Callable[..., Any], inputs: dict[str, Any], compile: bool = False) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads())
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    call = torch.compile(function) if compile else function

    def run() -> Any:
        with torch.no_grad():
            return call(torch, **tensors)

    return run


def jax_function(function: Callable[..., Any], inputs: dict[str, Any]) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    if any(array.dtype == np.float64 for array in inputs.values()):
        jax.config.update("jax_enable_x64", True)  # else it computes in float32
    compiled = jax.jit(lambda arrays: function(jnp, **arrays))
    arrays = {name: jnp.asarray(array) for name, array in inputs.items()}

    def run() -> Any:
        return jax.block_until_ready(compiled(arrays))

    return run


def as_arrays(result: Any) -> list[Any]:
    """Results as float64 or integer NumPy arrays."""
    items = result if isinstance(result, (list, tuple)) else [result]
    return [np.asarray(item) for item in items]
