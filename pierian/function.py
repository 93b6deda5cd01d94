"""`function`: a Python function traced to a graph once for each signature, then run as native code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from pierian.compiler.dim import Dim
from pierian.compiler.dtype import as_dtype
from pierian.compiler.errors import ArgumentError, DTypeError, PierianError
from pierian.compiler.graph.builder import apart_from_recorders, as_constant, current, recorders, using
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value
from pierian.compiler.location import capture
from pierian.compiler.shape import TensorType
from pierian.eager import EagerBuilder, evaluate, leaf
from pierian.tensor import Tensor
from pierian.variable import TraceBuilder, Variable, register_trace, unregister_trace


class TensorSpec:
    """The type of an argument of a traced function; sizes that are None are left open."""

    def __init__(self, shape: Sequence[int | str | None], dtype: Any = "float32") -> None:
        self.shape = tuple(shape)
        self.dtype = as_dtype(dtype)

    def __repr__(self) -> str:
        return f"TensorSpec(shape={self.shape}, dtype={self.dtype})"


class _Trace:
    """A traced function body."""

    def __init__(self, builder: TraceBuilder, inputs: list[Value], structure: Any, outputs: list[Value]) -> None:
        self.builder = builder
        self.graph = builder.graph
        self.inputs = inputs
        self.structure = structure
        self.outputs = outputs
        self.assigned = builder.assigned()
        self.call: Callable[[Sequence[Any]], list[Any]] | None = None


class Function:
    """A callable that runs a traced graph; made by `function`.

    Tensors and arrays among the arguments become inputs; other arguments are part of the signature. Variables are read when the
    function is called, and assigned together when it has returned. Called while a graph is built, or under a gradient tape, the
    traced operations are put in place of the call.
    """

    def __init__(
        self, python_function: Callable[..., Any], input_signature: Sequence[TensorSpec] | None = None
    ) -> None:
        functools.update_wrapper(self, python_function)
        self.python_function = python_function
        self.input_signature = input_signature
        self._traces: dict[Any, _Trace] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors: list[Any] = []
        key = (_signature(args, tensors), _signature(kwargs, tensors))
        if self.input_signature is not None:
            key = ("signature", len(tensors))
        trace = self._traces.get(key)
        if trace is None:
            trace = self._traces[key] = self._trace(args, kwargs, tensors)
        if not isinstance(current(), EagerBuilder) or recorders():
            return self._inline(trace, tensors)
        return self._run(trace, tensors)

    def graph(self, *args: Any, **kwargs: Any) -> Graph:
        """The traced graph for these arguments."""
        tensors: list[Any] = []
        key = (_signature(args, tensors), _signature(kwargs, tensors))
        if key not in self._traces:
            self._traces[key] = self._trace(args, kwargs, tensors)
        return self._traces[key].graph

    def _trace(self, args: Any, kwargs: Any, tensors: Sequence[Any]) -> _Trace:
        graph = Graph(getattr(self, "__name__", "function"), Tensor)
        builder = TraceBuilder(graph)
        inputs: list[Value] = []
        if self.input_signature is not None and len(self.input_signature) != len(tensors):
            raise ArgumentError(
                "the arguments do not fit input_signature", got=f"{len(tensors)} tensors",
                expected=f"{len(self.input_signature)}", location=capture(),
            )  # fmt: skip

        def parameter(item: Any) -> Any:
            type_ = _type_of(item)
            name = f"arg{len(inputs)}"
            if self.input_signature is not None:
                type_ = _relaxed(graph, self.input_signature[len(inputs)], type_, name)
            value = builder.placeholder(type_, name)
            inputs.append(value)
            return value

        register_trace(builder)
        try:
            with apart_from_recorders(), using(builder):
                result = self.python_function(*_mapped(args, parameter), **_mapped(kwargs, parameter))
                outputs: list[Value] = []
                structure = _mapped_results(result, builder, outputs)
        finally:
            unregister_trace(builder)
        trace = _Trace(builder, inputs, structure, outputs)
        graph.set_outputs([*outputs, *(value for _, value in trace.assigned)])
        return trace

    def _run(self, trace: _Trace, tensors: Sequence[Any]) -> Any:
        from pierian.runtime.callable import prepare

        builder = trace.builder
        results = [*trace.outputs, *(value for _, value in trace.assigned)]
        inputs = [*trace.inputs, *builder.reads.values(), *builder.captured.values()]
        if trace.call is None:
            trace.call = prepare(trace.graph, inputs, results)
        outside = [*(variable._eager() for variable in builder.reads), *builder.captured]
        evaluate([tensor for tensor in (*tensors, *outside) if isinstance(tensor, Tensor)])
        arrays = [_array_of(tensor) for tensor in (*tensors, *outside)]
        found = [leaf(array) for array in trace.call(arrays)]
        for (variable, _), value in zip(trace.assigned, found[len(trace.outputs) :], strict=True):
            variable._replace(value)
        return _rebuilt(trace.structure, found)

    def _inline(self, trace: _Trace, tensors: Sequence[Any]) -> Any:
        b = current()
        builder = trace.builder
        given = [*tensors, *builder.reads, *builder.captured]
        inputs = [*trace.inputs, *builder.reads.values(), *builder.captured.values()]
        mapping: dict[Value, Value] = {inner: b.as_value(outer) for inner, outer in zip(inputs, given, strict=True)}
        for node in trace.graph.nodes:
            if node.op.name == "placeholder":
                continue
            bodies = tuple(body.clone(None, Tensor) for body in node.bodies)
            made = b.apply(node.op, [mapping[v] for v in node.inputs], dict(node.attributes), bodies)
            mapping.update(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))
        for variable, value in trace.assigned:
            variable.assign(mapping[value])
        return _rebuilt(trace.structure, [mapping[value] for value in trace.outputs])


def function(python_function: Any = None, *, input_signature: Sequence[TensorSpec] | None = None) -> Any:
    """Decorator: trace a Python function to a graph, once for each signature, and run it as native code.

    Args:
        python_function: what to trace. Python statements run while tracing; what depends on tensors becomes operators.
        input_signature: types of the tensor arguments; with open sizes one trace and one compilation serve them all.

    >>> @function
    ... def step(x):
    ...     return x * x + 1.0
    """
    if python_function is None:
        return lambda given: Function(given, input_signature)
    return Function(python_function, input_signature)


def _is_tensor(item: Any) -> bool:
    return isinstance(item, Tensor) or (
        hasattr(item, "dtype") and hasattr(item, "__array__") and not isinstance(item, Variable)
    )


def _signature(item: Any, tensors: list[Any]) -> Any:
    """A hashable picture of arguments; tensors are collected on the way."""
    if _is_tensor(item):
        tensors.append(item)
        return ("tensor", _type_of(item))
    if isinstance(item, dict):
        return ("dict", tuple((key, _signature(value, tensors)) for key, value in item.items()))
    if isinstance(item, (list, tuple)):
        return (type(item).__name__, tuple(_signature(value, tensors) for value in item))
    try:
        hash(item)
    except TypeError:
        return ("object", id(item))
    return (type(item), item) if not isinstance(item, Variable) else ("variable", id(item))


def _type_of(item: Any) -> TensorType:
    return item.type if isinstance(item, Tensor) else as_constant(item, None).type


def _array_of(item: Any) -> Any:
    return item.data if isinstance(item, Tensor) else as_constant(item, None).array


def _relaxed(graph: Graph, spec: TensorSpec, given: TensorType, name: str) -> TensorType:
    if spec.dtype is not given.dtype or len(spec.shape) != given.rank:
        raise DTypeError("an argument does not fit input_signature", got=given, expected=spec)
    sizes: list[Dim] = []
    for axis, dim in enumerate(spec.shape):
        if dim is None:
            sizes.append(graph.fresh_symbol(f"{name}_{axis}"))
        else:
            sizes.append(graph.use_symbol(dim) if isinstance(dim, str) else dim)
    return TensorType(spec.dtype, sizes)


def _mapped(item: Any, parameter: Callable[[Any], Any]) -> Any:
    if _is_tensor(item):
        return parameter(item)
    if isinstance(item, dict):
        return {key: _mapped(value, parameter) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return type(item)(_mapped(value, parameter) for value in item)
    return item


def _mapped_results(item: Any, builder: TraceBuilder, outputs: list[Value]) -> Any:
    """Results as numbers into `outputs`, in their structure."""
    if item is None:
        return None
    if isinstance(item, dict):
        return {key: _mapped_results(value, builder, outputs) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return type(item)(_mapped_results(value, builder, outputs) for value in item)
    try:
        outputs.append(builder.as_value(item))
    except PierianError as error:
        raise ArgumentError("a traced function must return tensors", got=repr(item)[:80], advice=error.what) from None
    return _Position(len(outputs) - 1)


class _Position(int):
    """Where in the list of outputs a result stands."""


def _rebuilt(structure: Any, results: Sequence[Any]) -> Any:
    if isinstance(structure, _Position):
        return results[structure]
    if isinstance(structure, dict):
        return {key: _rebuilt(value, results) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)(_rebuilt(value, results) for value in structure)
    return None
