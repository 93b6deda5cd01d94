"""How nodes are made: argument conversion, promotion, inference, names and locations.

`current()` is the builder that an operator called by its name uses. Rules (gradients, expansions) are handed a
builder and call operators as its methods: `b.multiply(dy, y)`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pierian.compiler.dim import Symbolic
from pierian.compiler.dtype import DType, as_dtype, bool_, float32, float64, int32, int64, promote, promote_scalar
from pierian.compiler.errors import ArgumentError, DTypeError, GraphError, PierianError, ShapeError
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Value
from pierian.compiler.graph.operator import Operator
from pierian.compiler.location import Location, capture
from pierian.compiler.shape import TensorType

_SCALARS = (bool, int, float)


class Builder:
    """Applies operators. Subclasses say where nodes go (`insert`).

    Attributes:
        graph: the graph that nodes go to, if any.
        outer: of a body's builder, the builder of what encloses it.
        value_type: class of the values that are made.
        location: set by passes: where new nodes come from; else the user's line is captured.
    """

    graph: Any = None
    outer: Builder | None = None
    value_type: type[Value] = Value

    def __init__(self) -> None:
        self.location: Location | None = None
        self._constants: dict[Any, Value] = {}

    # --- what subclasses decide ---------------------------------------------------------------------

    def insert(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        types: Sequence[TensorType],
        bodies: Sequence[Graph],
        name: str | None,
        location: Location | None,
    ) -> tuple[Value, ...]:
        """Make the node; what it gives."""
        raise NotImplementedError(f"{type(self).__name__} must say where nodes go")

    def adopt(self, value: Value) -> Value:
        """The value as this builder's graph may use it (a capture where it comes from an enclosing one)."""
        return value

    # --- calling operators ---------------------------------------------------------------------------

    def call(self, op: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Apply `op` to Python arguments as its schema says; returns a Value or a tuple of them."""
        name = kwargs.pop("name", None) if kwargs and "name" not in op.parameter_names else None
        tensors, attributes = self._bind(op, args, kwargs)
        return self.apply(op, self.convert(op, tensors), attributes, name=name)

    def apply(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        bodies: Sequence[Graph] = (),
        name: str | None = None,
    ) -> Any:
        """Apply `op` to values: infer the types and make the node."""
        location = self.location or capture()
        types = infer(op, inputs, attributes, bodies, location, name)
        outputs = self.insert(op, inputs, attributes, types, bodies, name, location)
        for recorder in recorders():
            recorder.record(outputs[0].node)
        return outputs[0] if len(outputs) == 1 else outputs

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        from pierian.compiler.ops.definition import operator_named  # operators are defined on top of this module

        op = operator_named(name)

        def bound(*args: Any, **kwargs: Any) -> Any:
            return self.call(op, args, kwargs)

        self.__dict__[name] = bound
        return bound

    def constant(self, value: Any, dtype: DType | str | None = None, name: str | None = None) -> Value:
        """A constant; equal scalars are one node. Python floats become float32, ints int32 unless `dtype` says."""
        payload = value if isinstance(value, Constant) else as_constant(value, dtype)
        key = payload if payload.is_scalar and name is None else None
        if key is not None:
            found = self._constants.get(key)
            if found is not None and self._is_alive(found):
                return found
        from pierian.compiler.ops.definition import operator_named

        result = self.apply(operator_named("constant"), (), {"value": payload}, name=name)
        if key is not None:
            self._constants[key] = result
        return result

    def constant_like(self, value: bool | int | float, other: Value) -> Value:
        """A scalar constant of the element type of `other`."""
        return self.constant(value, other.dtype)

    def _is_alive(self, value: Value) -> bool:
        return value.node.graph is not None

    # --- arguments ------------------------------------------------------------------------------------

    def _bind(self, op: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        parameters = op.parameters
        if len(args) > len(parameters):
            raise ArgumentError(f"{op.name} takes {len(parameters)} arguments", got=len(args), location=self._here())
        tensors: list[Any] = []
        attributes: dict[str, Any] = {}
        taken = 0
        for position, parameter in enumerate(parameters):
            if position < len(args):
                given = args[position]
            elif parameter.name in kwargs:
                given = kwargs[parameter.name]
                taken += 1
            elif parameter.required:
                raise ArgumentError(f"{op.name} needs argument {parameter.name!r}", location=self._here())
            else:
                given = parameter.default
            if parameter.kind == "attribute":
                attributes[parameter.name] = freeze(given)
            elif parameter.kind == "tensors":
                if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
                    raise ArgumentError(
                        f"{op.name} needs a sequence of tensors for {parameter.name!r}", location=self._here()
                    )
                tensors.extend(given)
            elif given is not None or parameter.kind == "tensor":
                tensors.append(given)
        if taken != len(kwargs):
            unknown = sorted(set(kwargs) - set(op.parameter_names[len(args) :]))
            raise ArgumentError(
                f"{op.name} has no argument {', '.join(map(repr, unknown))}",
                expected=", ".join(op.parameter_names),
                location=self._here(),
            )
        return tensors, attributes

    def convert(self, op: Operator, given: Sequence[Any]) -> list[Value]:
        """Arguments as values of this builder, promoted as the operator asks."""
        values: list[Any] = [self.as_value(one, weak=True) for one in given]
        if op.promote == "branches":
            return [self._condition(values[0]), *self._promote(op, values[1:])]
        if op.promote is not None:
            return self._promote(op, values)
        first = next((value.dtype for value in values if isinstance(value, Value)), None)
        return [
            value if isinstance(value, Value) else self.constant(value, _scalar_type(value, first)) for value in values
        ]

    def as_value(self, given: Any, weak: bool = False) -> Any:
        """A Value for anything array-like; with `weak`, Python scalars stay as they are."""
        if isinstance(given, Value):
            return self.adopt(given)
        convert = getattr(given, "__pierian_value__", None)
        if convert is not None:
            return self.adopt(convert(self))
        if weak and isinstance(given, _SCALARS):
            return given
        if isinstance(given, Symbolic):
            raise ArgumentError(
                "a symbolic size is not a tensor", got=given, advice="use pierian.size(x, axis)", location=self._here()
            )
        return self.constant(as_constant(given, None))

    def _promote(self, op: Operator, values: list[Any]) -> list[Value]:
        target: DType | None = None
        for value in values:
            if isinstance(value, Value):
                target = value.dtype if target is None else promote(target, value.dtype)
        for value in values:
            if not isinstance(value, Value):
                target = (
                    _scalar_type(value, None)
                    if target is None
                    else promote(target, promote_scalar(value, target))
                    if not isinstance(value, float) or not target.is_integer
                    else float64
                )
        if target is None:
            raise ArgumentError(f"{op.name} needs a tensor at least", location=self._here())
        if op.promote == "float" and not target.is_float:
            target = float64 if target in (int32, int64) else float32
        return [
            self.cast_to(value, target) if isinstance(value, Value) else self.constant(value, target)
            for value in values
        ]

    def _condition(self, value: Any) -> Value:
        return value if isinstance(value, Value) else self.constant(value)

    def cast_to(self, value: Value, dtype: DType) -> Value:
        """The value in another element type; itself where it has that type."""
        if value.dtype is dtype:
            return value
        return self.cast(value, dtype=dtype)

    def _here(self) -> Location:
        return self.location or capture()


class GraphBuilder(Builder):
    """Adds nodes to a graph, under a stack of name scopes."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph: Graph = graph
        self.value_type = graph.value_type
        self.scopes: list[str] = []

    def insert(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        types: Sequence[TensorType],
        bodies: Sequence[Graph],
        name: str | None,
        location: Location | None,
    ) -> tuple[Value, ...]:
        base = name or op.name
        if self.scopes:
            base = "/".join((*self.scopes, base))
        return self.graph.add_node(op, inputs, attributes, types, bodies, base, location).outputs

    def adopt(self, value: Value) -> Value:
        graph = value.node.graph
        if graph is self.graph:
            return value
        return self._capture(value)

    def _capture(self, value: Value) -> Value:
        """Bring a value of an enclosing graph into this body as a parameter."""
        known = self.graph.captures.get(value)
        if known is not None:
            return known
        if self.graph.parent is None or not _encloses(value.node.graph, self.graph):
            raise GraphError(
                "a value of another graph is used here",
                where=value.name,
                location=value.node.location,
                advice="build all of it inside one graph",
            )
        parameter = self.placeholder(value.type, f"captured_{value.node.name}".replace("/", "_"))
        self.graph.captures[value] = parameter
        return parameter

    def placeholder(self, type_: TensorType, name: str | None = None) -> Value:
        """A new input of the graph."""
        from pierian.compiler.ops.definition import operator_named

        value = self.apply(operator_named("placeholder"), (), {"type": type_}, name=name or "placeholder")
        return self.graph.add_input(value.node)

    @contextmanager
    def scope(self, name: str) -> Iterator[str]:
        """Names made inside begin with `name/`."""
        self.scopes.append(name)
        try:
            yield "/".join(self.scopes)
        finally:
            self.scopes.pop()

    def _is_alive(self, value: Value) -> bool:
        return value.node.graph is self.graph


def infer(
    op: Operator,
    inputs: Sequence[Value],
    attributes: dict[str, Any],
    bodies: Sequence[Graph] = (),
    location: Location | None = None,
    name: str | None = None,
) -> tuple[TensorType, ...]:
    """The output types of `op`; canonicalizes `attributes` in place. Errors name the operator and location."""
    types = [value.type for value in inputs]
    try:
        if op.normalize_rule is not None:
            attributes.update(op.normalize_rule(types, attributes))
        if op.infer_rule is None:
            raise GraphError(f"operator {op.name!r} has no inference rule")
        if op.has_bodies:
            result = op.infer_rule(types, bodies, **attributes)
        else:
            result = op.infer_rule(*types, **attributes)
        found = result if isinstance(result, tuple) else (result,)
        for type_ in found:
            if not all(
                isinstance(dim, Symbolic) or (isinstance(dim, (int, np.integer)) and dim >= 0) for dim in type_.shape
            ):
                raise ShapeError("sizes are integers that are not negative", got=type_)
    except PierianError as error:
        raise _placed(error, op, types, location, name) from None
    return found


def _placed(
    error: PierianError,
    op: Operator,
    types: Sequence[TensorType],
    location: Location | None,
    name: str | None,
) -> PierianError:
    """The same error with operator, types and the user's line, where it does not say them yet."""
    if error.where is None:
        label = f" (named {name!r})" if name else ""
        error.where = f"{op.name}({', '.join(map(str, types))}){label}"
    if error.location is None:
        error.location = location
    error.args = (error.render(),)
    return error


def _encloses(outer: Graph | None, inner: Graph | None) -> bool:
    while inner is not None:
        inner = inner.parent
        if inner is outer:
            return True
    return False


def as_constant(value: Any, dtype: DType | str | None) -> Constant:
    """An array-like as a payload: Python floats (nested lists too) become float32 and ints int32 (int64 where
    they do not fit), NumPy arrays keep their type.

    Raises:
        DTypeError: not an array of a supported element type.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DTypeError("this is not an array", got=repr(value)[:80], advice=str(error)) from None
    if dtype is not None:
        wanted = as_dtype(dtype)
        if array.dtype == object:
            raise DTypeError("this is not an array of numbers", got=repr(value)[:80])
        array = array.astype(wanted.numpy)
    elif not hasattr(value, "dtype"):
        array = array.astype(_default_type(array).numpy)
    as_dtype(array.dtype)
    return Constant(array)


def _default_type(array: np.ndarray[Any, Any]) -> DType:
    kind = array.dtype.kind
    if kind == "f":
        return float32
    if kind == "b":
        return bool_
    if kind in "iu":
        info = np.iinfo(np.int32)
        small = array.size == 0 or (array.min() >= info.min and array.max() <= info.max)
        return int32 if small else int64
    return as_dtype(array.dtype)


def _scalar_type(value: bool | int | float, other: DType | None) -> DType:
    if other is None:
        return _default_type(np.asarray(value))
    return promote(other, promote_scalar(value, other)) if not isinstance(value, float) or other.is_float else float64


def freeze(value: Any) -> Any:
    """An attribute as an immutable value: lists become tuples, NumPy scalars Python ones, dtypes DTypes."""
    if isinstance(value, (list, tuple)):
        return tuple(freeze(one) for one in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return freeze(value.tolist()) if value.ndim <= 1 else Constant(value)
    if isinstance(value, (np.dtype, type)):
        return as_dtype(value)
    return value


_LOCAL = threading.local()
_DEFAULT: list[Callable[[], Builder]] = []


def set_default_builder(factory: Callable[[], Builder]) -> None:
    """Say which builder operators use outside any graph (the front end's eager mode)."""
    _DEFAULT[:] = [factory]


def current() -> Builder:
    """The builder of this thread: the innermost entered one, else the default."""
    stack = getattr(_LOCAL, "stack", None)
    if stack:
        return stack[-1]
    if _DEFAULT:
        return _DEFAULT[0]()
    raise GraphError("no graph is being built", advice="use `with using(GraphBuilder(graph)):`")


def recorders() -> list[Any]:
    """Whose `record` is called with every node that is made by this thread: the gradient tapes that are recording."""
    found: list[Any] | None = getattr(_LOCAL, "recorders", None)
    if found is None:
        found = _LOCAL.recorders = []
    return found


@contextmanager
def apart_from_recorders() -> Iterator[None]:
    """Recorders that there are do not learn of what is made inside; those that begin inside do."""
    outside = recorders()
    _LOCAL.recorders = []
    try:
        yield
    finally:
        _LOCAL.recorders = outside


@contextmanager
def using(builder: Builder) -> Iterator[Builder]:
    """Operators called inside apply to `builder`."""
    stack = _LOCAL.__dict__.setdefault("stack", [])
    stack.append(builder)
    try:
        yield builder
    finally:
        stack.pop()
