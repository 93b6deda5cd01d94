"""`function`: a Python function traced to a graph once for each signature, then run as native code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

from pierian.compiler.dim import Dim
from pierian.compiler.dtype import as_dtype
from pierian.compiler.errors import ArgumentError, DTypeError, PierianError
from pierian.compiler.graph.builder import apart_from_recorders, current, recorders, using
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value
from pierian.compiler.location import capture
from pierian.compiler.shape import TensorType
from pierian.eager import EagerBuilder, computed, evaluate
from pierian.random import current_seed, draw_from, take_draws
from pierian.tensor import Tensor
from pierian.variable import TraceBuilder, Variable, register_trace, unregister_trace

if TYPE_CHECKING:
    from pierian.runtime.callable import PreparedCall


class TensorSpec:
    """The type of an argument of a traced function; sizes that are None are left open."""

    def __init__(self, shape: Sequence[int | str | None], dtype: Any = "float32") -> None:
        self.shape = tuple(shape)
        self.dtype = as_dtype(dtype)

    def __repr__(self) -> str:
        return f"TensorSpec(shape={self.shape}, dtype={self.dtype})"


class _Trace:
    """A traced function body.

    Attributes:
        graph: its operators; variables, tensors from outside and random numbers come in as inputs.
        inputs: those that the arguments are given to.
        structure: of the results, with the numbers of `outputs` in the places of tensors.
        outputs: tensors that are handed back.
        assigned: new values of variables.
        seed: of its random numbers; None where it draws none.
    """

    def __init__(self, builder: TraceBuilder, inputs: list[Value], structure: Any, outputs: list[Value]) -> None:
        self.builder = builder
        self.graph = builder.graph
        self.inputs = inputs
        self.structure = structure
        self.outputs = outputs
        self.assigned = builder.assigned()
        self.seed = None if builder.draws is None else current_seed()
        self._types = [value.type if value.type.is_static else None for value in outputs]
        self._captured: list[Any] = []
        self._call: PreparedCall | None = None

    def run(self, tensors: list[Any]) -> list[Tensor]:
        """The outputs for these arguments, as native code computes them; variables have their new values."""
        call = self._call or self._prepare()
        arrays = [_array_of(tensor) for tensor in tensors]
        arrays += self._captured
        if self.seed is not None:
            arrays.append(np.array(take_draws(self.builder.drawn), np.int64))
        found = call(arrays)
        return [
            computed(array, type_ or TensorType(value.dtype, array.shape))
            for array, type_, value in zip(found, self._types, self.outputs, strict=True)
        ]

    def inline(self, tensors: Sequence[Any]) -> list[Any]:
        """The outputs, from the same operators applied in what is being built."""
        b, builder = current(), self.builder
        given = [*tensors, *builder.reads, *builder.captured]
        inputs = [*self.inputs, *builder.reads.values(), *builder.captured.values()]
        mapping: dict[Value, Value] = {inner: b.as_value(outer) for inner, outer in zip(inputs, given, strict=True)}
        stream = 0
        if builder.draws is not None:
            mapping[builder.draws], stream = draw_from(b, builder.drawn)
        for node in self.graph.nodes:
            if node.op.name == "placeholder":
                continue
            attributes = dict(node.attributes)
            if node.op.random and stream:
                attributes["stream"] = stream
                stream += 1
            bodies = tuple(body.clone(None, Tensor) for body in node.bodies)
            made = b.apply(node.op, [mapping[v] for v in node.inputs], attributes, bodies)
            mapping.update(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))
        for variable, value in self.assigned.items():
            variable.assign(mapping[value])
        return [mapping[value] for value in self.outputs]

    def _prepare(self) -> PreparedCall:
        """Compile the graph. Variables are updated in place where nobody else holds their values."""
        from pierian.eager_store import EagerStore
        from pierian.runtime.callable import prepare

        builder = self.builder
        evaluate(list(builder.captured))
        self._captured = [tensor.data for tensor in builder.captured]
        names = {variable: value.name for variable, value in builder.reads.items()}
        draws = [] if builder.draws is None else [builder.draws]
        self._call = prepare(
            self.graph, [*self.inputs, *builder.captured.values(), *draws], self.outputs,
            reads={names[variable]: value for variable, value in builder.reads.items()},
            assigns={names[variable]: value for variable, value in self.assigned.items()},
            store=EagerStore({name: variable for variable, name in names.items()}),
        )  # fmt: skip
        return self._call


class Function:
    """A callable that runs a traced graph; made by `function`.

    Tensors and arrays among the arguments become inputs; other arguments are part of the signature. Variables are read when the
    function is called, and assigned together when it has returned; functions that assign run one after the other. Random numbers
    are those that the same statements would draw eagerly. Called while a graph is built, or under a gradient tape, the traced
    operations are put in place of the call.
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
        trace = self._find(args, kwargs, tensors)
        run = trace.run if isinstance(current(), EagerBuilder) and not recorders() else trace.inline
        return _rebuilt(trace.structure, run(tensors))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method of a class: the instance is the first argument, and part of the signature."""
        return self if instance is None else MethodType(self, instance)

    def graph(self, *args: Any, **kwargs: Any) -> Graph:
        """The traced graph for these arguments."""
        return self._find(args, kwargs, []).graph

    def _find(self, args: Any, kwargs: Any, tensors: list[Any]) -> _Trace:
        """The trace for these arguments; their tensors are collected."""
        key: Any = tuple([_signature(item, tensors) for item in args])
        if kwargs:
            key = (key, _signature(kwargs, tensors))
        if self.input_signature is not None:
            key = len(tensors)
        trace = self._traces.get(key)
        if trace is None or (trace.seed is not None and trace.seed != current_seed()):
            trace = self._traces[key] = self._trace(args, kwargs, tensors)
        return trace

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
        graph.set_outputs([*outputs, *trace.assigned.values()])
        return trace


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
    return isinstance(item, (Tensor, np.ndarray)) or (
        hasattr(item, "dtype") and hasattr(item, "__array__") and not isinstance(item, Variable)
    )


def _signature(item: Any, tensors: list[Any]) -> Any:
    """A hashable picture of an argument; tensors are collected on the way."""
    if _is_tensor(item):
        tensors.append(item)
        return _type_of(item)
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
    if isinstance(item, Tensor):
        return item.type
    array = item if isinstance(item, np.ndarray) else np.asarray(item)
    return _array_type(array.dtype, array.shape)


@functools.lru_cache(maxsize=1024)
def _array_type(dtype: Any, shape: tuple[int, ...]) -> TensorType:
    return TensorType(as_dtype(dtype), shape)


def _array_of(item: Any) -> Any:
    """The array of an argument; another library's as it is."""
    if not isinstance(item, Tensor):
        return item
    if item.data is None:
        evaluate([item])
    return item.data


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
