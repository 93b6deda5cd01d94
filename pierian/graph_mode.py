"""Graphs as users build them: the default graph, placeholders, constants, name scopes, gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, Symbolic
from pierian.compiler.dtype import DType, as_dtype
from pierian.compiler.errors import ArgumentError, GraphError
from pierian.compiler.graph import graph as ir
from pierian.compiler.graph.builder import GraphBuilder, as_constant, current, using
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph as IRGraph
from pierian.compiler.shape import TensorType
from pierian.tensor import Tensor


class Graph(IRGraph):
    """A dataflow graph. Inside `with graph.as_default():` operators add to it; a `Session` runs it.

    >>> graph = Graph()
    >>> with graph.as_default():
    ...     x = placeholder(float32, [None, 3], name="x")
    ...     y = reduce_sum(x * 2.0, axis=1)
    """

    def __init__(self, name: str = "graph") -> None:
        super().__init__(name, Tensor)
        self._builder: GraphBuilder | None = None

    def builder(self) -> GraphBuilder:
        """The builder that adds to this graph."""
        if self._builder is None:
            self._builder = GraphBuilder(self)
        return self._builder

    @contextmanager
    def as_default(self) -> Iterator[Graph]:
        """Operators called inside add to this graph."""
        with using(self.builder()):
            yield self

    @staticmethod
    def load(path: str | Path) -> Graph:
        """Read a graph written by `save`; see `pierian.compiler.graph.graph.Graph.load`."""
        read = IRGraph.load(path)
        graph = Graph(read.name)
        adopted, _ = read.clone_with_map(None, Tensor)
        for field in (
            "nodes", "inputs", "output_names", "variables", "seed", "_result", "_names", "_symbols",
        ):  # fmt: skip
            setattr(graph, field, getattr(adopted, field))
        for node in (*graph.nodes, graph.result):
            node.graph = graph
        return graph


_DEFAULT: list[Graph] = []


def default_graph() -> Graph:
    """The graph operators add to now; outside any graph a process-wide one."""
    builder = current()
    if isinstance(builder, GraphBuilder) and isinstance(builder.graph, Graph):
        return builder.graph
    if not _DEFAULT:
        _DEFAULT.append(Graph("default"))
    return _DEFAULT[0]


def is_building() -> bool:
    """Whether operators add to a graph now (else they are eager)."""
    return isinstance(current(), GraphBuilder)


def graph_builder() -> GraphBuilder:
    """The builder of the graph being built; the default graph's outside any."""
    builder = current()
    return builder if isinstance(builder, GraphBuilder) else default_graph().builder()


def placeholder(dtype: Any, shape: Sequence[int | str | Symbolic | None] = (), name: str | None = None) -> Tensor:
    """A tensor whose value is fed when the graph runs.

    Args:
        dtype: its element type.
        shape: its sizes; None is a size not known yet, a string names one (equal names are equal sizes).
        name: its name in the graph.
    """
    builder = graph_builder()
    graph = builder.graph
    base = name or "placeholder"
    sizes: list[Dim] = []
    for axis, dim in enumerate(shape):
        if dim is None or (isinstance(dim, int) and dim == -1):
            sizes.append(graph.fresh_symbol(f"{base}_{axis}"))
        elif isinstance(dim, str):
            sizes.append(graph.use_symbol(dim))
        elif isinstance(dim, (int, np.integer)):
            if dim < 0:
                raise ArgumentError("sizes cannot be negative", got=dim)
            sizes.append(int(dim))
        else:
            sizes.append(dim)
    value = builder.placeholder(TensorType(as_dtype(dtype), sizes), name)
    assert isinstance(value, Tensor)
    return value


def constant(value: Any, dtype: Any = None, shape: Sequence[int] | None = None, name: str | None = None) -> Tensor:
    """A tensor with a fixed value.

    Args:
        value: numbers, nested lists, or an array.
        dtype: its element type; by default floats become float32 and integers int32, arrays keep theirs.
        shape: its shape; one number fills it.
        name: its name in the graph.
    """
    payload = as_constant(value, dtype)
    if shape is not None:
        array = payload.array
        wanted = tuple(int(dim) for dim in shape)
        if array.size == 1:
            array = np.full(wanted, array.reshape(())[()], array.dtype)
        elif array.size != int(np.prod(wanted)):
            raise ArgumentError("the value does not fill the shape", got=array.shape, expected=wanted)
        payload = Constant(array.reshape(wanted))
    result = current().constant(payload, name=name)
    assert isinstance(result, Tensor)
    return result


def convert_to_tensor(value: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """`value` as a tensor: itself where it is one already (cast where `dtype` differs)."""
    if not isinstance(value, Tensor) and not hasattr(value, "__pierian_value__"):
        return constant(value, dtype, name=name)
    builder = current()
    found = builder.as_value(value)
    result = found if dtype is None else builder.cast_to(found, as_dtype(dtype))
    assert isinstance(result, Tensor)
    return result


@contextmanager
def name_scope(name: str) -> Iterator[str]:
    """Nodes made inside have names that begin with `name/`."""
    builder = current()
    if not isinstance(builder, GraphBuilder):
        yield name
        return
    with builder.scope(name) as full:
        yield full


def gradients(ys: Any, xs: Any, grad_ys: Any = None, unconnected_gradients: str = "error") -> list[Tensor]:
    """The gradients of the sum of `ys` with respect to each of `xs`, as new nodes of the graph.

    Args:
        ys: a float tensor, or a list.
        xs: tensors or variables `ys` depend on, or a list.
        grad_ys: gradients to start from, ones by default.
        unconnected_gradients: "error", "zero" or "none" where no y depends on an x.

    Raises:
        GradientError: an unconnected x, saying where the path breaks.
    """
    from pierian.compiler.autodiff.reverse import gradients as differentiate

    builder = graph_builder()
    outputs = [builder.as_value(y) for y in _listed(ys)]
    inputs = [builder.as_value(x) for x in _listed(xs)]
    starts = None if grad_ys is None else [None if g is None else builder.as_value(g) for g in _listed(grad_ys)]
    with builder.scope("gradients"):
        found = differentiate(builder, outputs, inputs, starts, unconnected_gradients)
    return found  # type: ignore[return-value]


def _listed(item: Any) -> list[Any]:
    return list(item) if isinstance(item, (list, tuple)) else [item]


class Initializer:
    """Fetched in a Session, sets every variable to its initial value."""

    def run_in_session(self, session: Any) -> None:
        session.initialize()


def global_variables_initializer() -> Initializer:
    """What sets all variables to their initial values when run. Sessions do it by themselves on first use."""
    return Initializer()


class Group:
    """Several operations to run together for their effect; fetched it gives None."""

    def __init__(self, tensors: Sequence[Tensor], name: str = "group") -> None:
        self.effects = tuple(tensors)
        self.name = name

    def __repr__(self) -> str:
        return f"<tf.Operation {self.name!r} of {len(self.effects)} tensors>"


def group(*inputs: Any, name: str = "group") -> Group:
    """One operation that runs all of `inputs`, tensors or groups."""
    tensors: list[Tensor] = []
    for item in inputs:
        tensors.extend(item.effects if isinstance(item, Group) else [item])
    return Group(tensors, name)


__all__ = [
    "DType", "Graph", "GraphError", "Group", "Initializer", "constant", "convert_to_tensor", "default_graph",
    "global_variables_initializer", "gradients", "graph_builder", "group", "ir", "is_building", "name_scope",
    "placeholder",
]  # fmt: skip
