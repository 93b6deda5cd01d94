"""Us: a graph, a Session and a prepared call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from peers import threads


def graph(build: Callable[..., Any], inputs: dict[str, Any], constants: Sequence[str] = ()) -> Callable[[], Any]:
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
