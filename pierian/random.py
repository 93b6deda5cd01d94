"""Random tensors. Each draw takes the next state of a counter, so a program gives the same numbers whenever it is run with
the same seed."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from pierian.compiler.dtype import as_dtype
from pierian.compiler.graph.builder import GraphBuilder, current
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph, VariableDeclaration
from pierian.compiler.ops.definition import operator_named
from pierian.compiler.shape import TensorType
from pierian.tensor import Tensor

_STATE = {"seed": 0, "draws": 0}
_LOCK = threading.Lock()
_COUNTER = "random/counter"


def set_seed(seed: int) -> None:
    """Start the random numbers of this process over from a seed."""
    with _LOCK:
        _STATE.update(seed=int(seed), draws=0)


def uniform(
    shape: Any, minval: float = 0, maxval: float | None = None, dtype: Any = "float32", seed: int | None = None
) -> Tensor:
    """Numbers drawn evenly from `minval` up to `maxval` (left out; 1 for floats by default).

    In a graph every run draws anew; the counter is a variable of the graph, so runs can be repeated from a checkpoint.
    """
    kind = as_dtype(dtype)
    if maxval is None:
        maxval = 1
    return _draw("random_uniform", shape, kind, seed, minval=minval, maxval=maxval)


def normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = "float32", seed: int | None = None
) -> Tensor:
    """Normally distributed numbers."""
    return _draw("random_normal", shape, as_dtype(dtype), seed, mean=mean, stddev=stddev)


def _draw(name: str, shape: Any, dtype: Any, seed: int | None, **attributes: Any) -> Tensor:
    builder = current()
    sizes = tuple(shape) if isinstance(shape, (list, tuple)) else (shape,)
    with _LOCK:
        stream = _STATE["draws"]
        _STATE["draws"] += 1
    key = _STATE["seed"] if seed is None else int(seed)
    if isinstance(builder, GraphBuilder):
        root = builder.graph
        while root.parent is not None:
            root = root.parent
        state = builder.as_value(_graph_counter(root))
        stream = sum(node.op.random for node in root.walk())
    else:
        # Eagerly the number of the draw is the state, so that the compiled code is the same for each.
        state = builder.constant(np.int64(stream))
        stream = 0
    return builder.call(
        operator_named(name), (state,), {"shape": sizes, "dtype": dtype, "seed": key, "stream": stream, **attributes}
    )


def _graph_counter(graph: Graph) -> Any:
    """The variable that counts the runs of a graph that draw random numbers."""
    declaration = graph.variables.get(_COUNTER)
    builder = GraphBuilder(graph)
    type_ = TensorType(as_dtype("int64"), ())
    if declaration is not None:
        for node in graph.nodes:
            if node.op.name == "variable_read" and node.attributes["variable"] == _COUNTER:
                return node.output
    read = builder.apply(
        operator_named("variable_read"), (), {"variable": _COUNTER, "type": type_}, name=f"{_COUNTER}/read"
    )
    following = builder.add(read, builder.constant(np.int64(1)))
    update = builder.apply(
        operator_named("variable_assign"),
        (following,),
        {"variable": _COUNTER, "type": type_},
        name=f"{_COUNTER}/assign",
    )
    graph.variables[_COUNTER] = VariableDeclaration(_COUNTER, type_, Constant(np.zeros((), np.int64)), False, update)
    return read
