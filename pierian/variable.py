"""Variables: state that lives from run to run in a graph, or from statement to statement eagerly."""

from __future__ import annotations

from typing import Any

import numpy as np

from pierian.compiler.dtype import as_dtype, int64
from pierian.compiler.errors import ExecutionError, GraphError, ShapeError
from pierian.compiler.forks import lock_across_forks
from pierian.compiler.graph.builder import Builder, GraphBuilder, as_constant, current, recorders
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph, VariableDeclaration
from pierian.compiler.location import capture
from pierian.compiler.ops.definition import operator_named
from pierian.compiler.shape import TensorType
from pierian.eager import EagerBuilder, evaluate, leaf
from pierian.tensor import Tensor

# Held by whoever gives variables new values eagerly.
ASSIGNING = lock_across_forks()


class Variable:
    """A tensor whose value can be replaced.

    Args:
        initial_value: numbers, an array, or a tensor.
        trainable: whether optimizers and tapes pay attention to it.
        dtype: its element type, by default that of the initial value.
        name: its name, made unique in its graph.

    Made while a graph is built it belongs to that graph, and each Session has a value of its own: all reads in a run see the
    value from before the run, and assignments take effect together at its end. Made eagerly it holds a value itself.
    """

    __array_priority__ = 100
    __array_ufunc__ = None

    def __init__(
        self,
        initial_value: Any,
        trainable: Any = True,
        dtype: Any = None,
        name: str | None = None,
        shape: Any = None,
    ) -> None:
        self.trainable = bool(trainable)
        initial = _initial(initial_value, dtype)
        if shape is not None and tuple(shape) != initial.type.shape:
            raise ShapeError("the initial value does not have the variable's shape", got=initial.type, expected=shape)
        self._type = initial.type
        builder = current()
        self.graph: Graph | None = None
        if isinstance(builder, GraphBuilder) and not isinstance(builder, TraceBuilder):
            self.graph = _root(builder.graph)
            self.name = self.graph.unique_name("/".join((*builder.scopes, name or "Variable")))
            self.graph.variables[self.name] = VariableDeclaration(
                self.name, initial.type, initial, self.trainable, None, capture()
            )
            self._read: Tensor | None = None
        else:
            self.name = name or "Variable"
            self._tensor: Tensor | None = leaf(initial)

    # --- facts -----------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> Any:
        return self._type.dtype

    @property
    def shape(self) -> Any:
        from pierian.tensor import Shape

        return Shape(self._type.shape)

    @property
    def type(self) -> TensorType:
        return self._type

    # --- reading ---------------------------------------------------------------------------------------------

    def __pierian_value__(self, builder: Builder) -> Tensor:
        """The variable as a tensor of what is being built; a body reads it outside and captures it."""
        value = self._read_in(builder)
        for recorder in recorders():
            recorder.read(self, value)
        return value

    def _read_in(self, builder: Builder) -> Tensor:
        if builder.outer is not None:
            return self._read_in(builder.outer)
        if isinstance(builder, TraceBuilder) and self.graph is None:
            return builder.read(self)
        if isinstance(builder, EagerBuilder):
            return self.eager_value()
        assert isinstance(builder, GraphBuilder)
        root = _root(builder.graph)
        outer = trace_of(builder)
        if outer is not None and self.graph is None:
            return outer.read(self)
        if self.graph is not root:
            raise GraphError(
                f"variable {self.name!r} does not belong to this graph",
                advice="make the variable inside `with graph.as_default():`",
            )
        if self._read is None or self._read.node.graph is not root:
            read = GraphBuilder(root).apply(
                operator_named("variable_read"),
                (),
                {"variable": self.name, "type": self._type},
                name=f"{self.name}/read",
            )
            self._read = read
        assert self._read is not None
        return self._read

    def eager_value(self) -> Tensor:
        """The tensor that is the value of a variable made eagerly; a run that is writing it is waited for.

        Raises:
            GraphError: the variable belongs to a graph.
        """
        if self.graph is not None:
            raise GraphError(
                f"variable {self.name!r} belongs to a graph and has a value only in a Session",
                advice="fetch it with Session.run, or session.value(variable)",
            )
        tensor = self._tensor
        if tensor is None:
            with ASSIGNING:
                tensor = self._tensor
            if tensor is None:
                raise ExecutionError(f"variable {self.name!r} is read by what interrupts its assignment")
        return tensor

    def value(self) -> Tensor:
        """The current value as a tensor."""
        result = current().as_value(self)
        assert isinstance(result, Tensor)
        return result

    read_value = value

    def numpy(self) -> Any:
        """The current value as a NumPy array (eager variables)."""
        return self.eager_value().numpy()

    # --- assigning -------------------------------------------------------------------------------------------

    def assign(self, value: Any, name: str | None = None) -> Any:
        """Replace the value. Eagerly this happens now; in a graph the result is a tensor to fetch.

        Raises:
            ShapeError: the value has another shape or element type.
        """
        builder = current()
        if isinstance(builder, GraphBuilder):
            converted = self._converted(builder, value)
            if self.graph is None:
                trace = trace_of(builder)
                if trace is None or builder is not trace:
                    raise GraphError(f"variable {self.name!r} cannot be assigned inside this body")
                trace.assign(self, converted)
                return converted
            if builder.graph is not self.graph:
                raise GraphError(
                    f"variable {self.name!r} cannot be assigned inside a body",
                    advice="return the value from the body and assign it outside",
                )
            attributes = {"variable": self.name, "type": self._type}
            return builder.apply(
                operator_named("variable_assign"), (converted,), attributes, name=name or f"{self.name}/assign"
            )
        self._replace(self._converted(builder, value))
        return self

    def _converted(self, builder: Builder, value: Any) -> Tensor:
        found = builder.as_value(value, weak=True)
        if not isinstance(found, Tensor):
            found = builder.constant(found, self._type.dtype)
        if found.dtype is not self._type.dtype and not isinstance(value, (Tensor, Variable)):
            found = builder.cast_to(found, self._type.dtype)
        if found.type != self._type:
            raise ShapeError(
                f"variable {self.name!r} cannot take this value",
                got=found.type,
                expected=self._type,
                location=capture(),
            )
        return found

    def _replace(self, tensor: Tensor) -> None:
        evaluate([tensor])
        with ASSIGNING:
            self._tensor = tensor

    def assign_add(self, delta: Any, name: str | None = None) -> Any:
        """Add to the value."""
        return self.assign(current().add(self, delta), name)

    def assign_sub(self, delta: Any, name: str | None = None) -> Any:
        """Subtract from the value."""
        return self.assign(current().subtract(self, delta), name)

    def scatter_add(self, sparse_delta: Any, use_locking: bool = False, name: str | None = None) -> Any:
        """Add rows, an `IndexedSlices`, to the rows they belong to; the others are not touched."""
        b = current()
        return self.assign(b.scatter_add(self, sparse_delta.indices, b.as_value(sparse_delta.values)), name)

    def scatter_sub(self, sparse_delta: Any, use_locking: bool = False, name: str | None = None) -> Any:
        """Subtract rows from the rows they belong to."""
        b = current()
        return self.assign(b.scatter_add(self, sparse_delta.indices, b.negative(sparse_delta.values)), name)

    def scatter_nd_add(self, indices: Any, updates: Any, name: str | None = None) -> Any:
        """`tensor_scatter_nd_add` into the variable."""
        from pierian.indexed import tensor_scatter_nd_add

        return self.assign(tensor_scatter_nd_add(self, indices, updates), name)

    # --- manners ---------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        if self.graph is not None:
            return f"<tf.Variable '{self.name}:0' shape={self.shape} dtype={self.dtype}>"
        array = self.eager_value()._value()
        text = str(array) if array.ndim == 0 else repr(array)
        return f"<tf.Variable '{self.name}:0' shape={self.shape} dtype={self.dtype}, numpy={text}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.numpy(), dtype=dtype)

    def __float__(self) -> float:
        return float(self.eager_value())

    def __int__(self) -> int:
        return int(self.eager_value())

    def __bool__(self) -> bool:
        return bool(self.value())

    def __len__(self) -> int:
        return len(self.value())

    def __getitem__(self, key: Any) -> Tensor:
        return self.value()[key]

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> Any:
        return self.value() == other


def _forward(name: str) -> Any:
    def operator(self: Variable, *args: Any) -> Any:
        return getattr(self.value(), name)(*args)

    operator.__name__ = name
    return operator


for _name in (
    "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "rfloordiv", "mod", "rmod", "pow",
    "rpow", "matmul", "rmatmul", "neg", "abs", "ne", "lt", "le", "gt", "ge",
):  # fmt: skip
    setattr(Variable, f"__{_name}__", _forward(f"__{_name}__"))


class TraceBuilder(GraphBuilder):
    """Traces a Python function: variables are read as inputs, assignments are remembered as outputs."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.reads: dict[Variable, Tensor] = {}
        self.current_values: dict[Variable, Tensor] = {}
        self.captured: dict[Tensor, Tensor] = {}
        self.draws: Tensor | None = None
        self.drawn = 0

    def read(self, variable: Variable) -> Tensor:
        """The variable's value at this point of the traced function."""
        found = self.current_values.get(variable)
        if found is None:
            value = self.placeholder(variable.type, variable.name)
            assert isinstance(value, Tensor)
            found = self.reads[variable] = self.current_values[variable] = value
        return found

    def assign(self, variable: Variable, value: Tensor) -> None:
        """From here on the variable has another value; it keeps it when the function returns."""
        self.read(variable)
        self.current_values[variable] = value

    def adopt(self, value: Any) -> Any:
        if value.node.graph is None and isinstance(value, Tensor):
            found = self.captured.get(value)
            if found is None:
                parameter = self.placeholder(value.type, "captured")
                assert isinstance(parameter, Tensor)
                found = self.captured[value] = parameter
            return found
        return super().adopt(value)

    def draw(self, count: int = 1) -> Tensor:
        """The number of the first of `count` draws of random numbers, counted on from where the generator stands at the call."""
        if self.draws is None:
            draws = self.placeholder(TensorType(int64, ()), "draws")
            assert isinstance(draws, Tensor)
            self.draws = draws
        number: Tensor = self.add(self.draws, self.constant(np.int64(self.drawn)))
        self.drawn += count
        return number

    def assigned(self) -> dict[Variable, Tensor]:
        """Variables that leave the function with another value."""
        return {v: value for v, value in self.current_values.items() if value is not self.reads[v]}


_TRACES: dict[int, TraceBuilder] = {}


def trace_of(builder: GraphBuilder) -> TraceBuilder | None:
    """The trace that a builder's graph belongs to, through enclosing bodies."""
    return _TRACES.get(id(_root(builder.graph)))


def register_trace(builder: TraceBuilder) -> None:
    """Let bodies inside a traced graph find the trace."""
    _TRACES[id(builder.graph)] = builder


def unregister_trace(builder: TraceBuilder) -> None:
    """The trace is complete."""
    _TRACES.pop(id(builder.graph), None)


def _root(graph: Graph) -> Graph:
    while graph.parent is not None:
        graph = graph.parent
    return graph


def _initial(value: Any, dtype: Any) -> Constant:
    """The initial value as an array; a tensor is computed, in a graph too."""
    if isinstance(value, Variable):
        value = value.value()
    if isinstance(value, Tensor):
        if value.node.graph is None:
            array = np.asarray(value._value())
        else:
            from pierian.runtime.callable import prepare

            array = prepare(value.node.graph, [], [value])([])[0]
        return as_constant(array, None if dtype is None else as_dtype(dtype))
    return as_constant(value, None if dtype is None else as_dtype(dtype))
