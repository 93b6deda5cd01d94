"""Random tensors. Each draw takes the next state of a counter, so a program gives the same numbers whenever it is run with
the same seed."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np

from pierian.compiler.dtype import as_dtype
from pierian.compiler.graph.builder import Builder, GraphBuilder, current
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph, VariableDeclaration
from pierian.compiler.graph.node import Value
from pierian.compiler.ops.control import turn_of
from pierian.compiler.ops.definition import operator_named
from pierian.compiler.shape import TensorType
from pierian.tensor import Tensor
from pierian.variable import TraceBuilder

_STATE = {"seed": 0, "draws": 0}
_LOCK = threading.Lock()
_COUNTER = "random/counter"
# Streams that draws in a graph have taken, also those in bodies that it does not hold yet.
_STREAMS: weakref.WeakKeyDictionary[Graph, int] = weakref.WeakKeyDictionary()


def set_seed(seed: int) -> None:
    """Start the random numbers of this process over from a seed."""
    with _LOCK:
        _STATE.update(seed=int(seed), draws=0)


def current_seed() -> int:
    """The seed that random numbers start from where the draw is given none."""
    return _STATE["seed"]


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
    key = _STATE["seed"] if seed is None else int(seed)
    state, stream = draw_from(builder)
    return builder.call(
        operator_named(name), (state,), {"shape": sizes, "dtype": dtype, "seed": key, "stream": stream, **attributes}
    )


def draw_from(builder: Builder, count: int = 1) -> tuple[Value, int]:
    """State and stream of the next draw, or of the first of several.

    Eagerly and in traced functions the number of the draw is the state: the compiled code is the same for each, and a function draws
    what its statements would draw outside it. In a graph the number of the run is the state, and each draw a stream. In loops the
    upper half of the state counts the turns.
    """
    outermost = builder
    while outermost.outer is not None:
        outermost = outermost.outer
    stream = 0
    if isinstance(outermost, TraceBuilder):
        state: Value = outermost.draw(count)
    elif isinstance(outermost, GraphBuilder):
        graph = outermost.graph
        state = _graph_counter(graph)
        stream = max(_STREAMS.get(graph, 0), sum(node.op.random for node in graph.walk()))
        _STREAMS[graph] = stream + count
    else:
        state = outermost.constant(np.int64(take_draws(count)))
    state = builder.as_value(state)
    turn = turn_of(builder)
    if turn is not None:
        state = builder.add(state, builder.multiply(turn, builder.constant(np.int64(1 << 32))))
    return state, stream


def take_draws(count: int) -> int:
    """The number of the next draw; `count` of them are taken."""
    with _LOCK:
        first = _STATE["draws"]
        _STATE["draws"] += count
    return first


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
