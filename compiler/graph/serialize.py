"""Graphs to and from their protobuf form. What is read is not trusted: everything is checked, nothing is executed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, Symbolic, parse_dim
from pierian.compiler.dtype import ALL, DType
from pierian.compiler.errors import FormatError, GraphError, PierianError
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph, VariableDeclaration
from pierian.compiler.graph.node import Value
from pierian.compiler.graph.printer import IR_VERSION
from pierian.compiler.location import Location, union
from pierian.compiler.ops.definition import operator_named
from pierian.compiler.shape import TensorType
from pierian.compiler.version import VERSION

OPERATOR_VERSION = 1
MAX_DEPTH = 32
MAX_NODES = 10_000_000
_DTYPES = {dtype.name: dtype for dtype in ALL}

# Takes an array's bytes, gives (offset, length) in the external file, or None to keep them inside.
Externalize = Callable[[bytes], tuple[str, int, int] | None]
# Reads (file, offset, length) of an external tensor.
ReadExternal = Callable[[str, int, int], bytes]


def to_proto(graph: Graph, externalize: Externalize | None = None) -> Any:
    """The graph as a `Model` message."""
    from pierian.proto import graph_pb2

    model = graph_pb2.Model()
    model.ir_version = IR_VERSION
    model.operator_version = OPERATOR_VERSION
    model.producer = f"pierian {VERSION}"
    writer = _Writer(externalize)
    writer.graph(graph, model.graph)
    model.files.extend(writer.files)
    return model


class _Writer:
    def __init__(self, externalize: Externalize | None) -> None:
        self.files: dict[str, int] = {}
        self.externalize = externalize

    def graph(self, graph: Graph, message: Any) -> None:
        message.name = graph.name
        message.seed = graph.seed
        numbers: dict[Value, int] = {}
        for node in graph.nodes:
            one = message.nodes.add()
            one.name, one.op = node.name, node.op.name
            one.inputs.extend(numbers[value] for value in node.inputs)
            for key, value in node.attributes.items():
                attribute = one.attributes.add()
                attribute.name = key
                self.attribute(value, attribute.value)
            for output in node.outputs:
                numbers[output] = len(numbers)
                self.type(output.type, one.outputs.add())
            for body in node.bodies:
                self.graph(body, one.bodies.add())
            self.location(node.location, one.locations)
        message.inputs.extend(numbers[value] for value in graph.inputs)
        message.outputs.extend(numbers[value] for value in graph.outputs)
        message.output_names.extend(graph.output_names)
        for declaration in graph.variables.values():
            variable = message.variables.add()
            variable.name, variable.trainable = declaration.name, declaration.trainable
            self.tensor(declaration.initial, variable.initial)
            if declaration.update is not None:
                variable.update = numbers[declaration.update] + 1
            self.location(declaration.location, variable.locations)

    def type(self, type_: TensorType, message: Any) -> None:
        message.dtype = type_.dtype.name
        for dim in type_.shape:
            self.dim(dim, message.shape.add())

    def dim(self, dim: Dim, message: Any) -> None:
        if isinstance(dim, int):
            message.known = dim
        else:
            message.expression = str(dim)

    def attribute(self, value: Any, message: Any) -> None:
        if value is None:
            return
        if isinstance(value, bool):
            message.boolean = value
        elif isinstance(value, int):
            message.integer = value
        elif isinstance(value, float):
            message.real = value
        elif isinstance(value, str):
            message.text = value
        elif isinstance(value, DType):
            message.dtype = value.name
        elif isinstance(value, Symbolic):
            message.dim.expression = str(value)
        elif isinstance(value, tuple):
            message.tuple.SetInParent()
            for item in value:
                self.attribute(item, message.tuple.items.add())
        elif isinstance(value, TensorType):
            self.type(value, message.type)
        elif isinstance(value, Constant):
            self.tensor(value, message.tensor)
        else:
            raise GraphError("an attribute of this kind cannot be saved", got=repr(value)[:80])

    def tensor(self, constant: Constant, message: Any) -> None:
        self.type(constant.type, message.type)
        array = constant.array
        raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        place = self.externalize(raw) if self.externalize is not None else None
        if place is None:
            message.data = raw
            return
        message.external.file, message.external.offset, message.external.length = place
        message.external.checksum = checksum(raw)

    def location(self, location: Location | None, messages: Any) -> None:
        for leaf in location.leaves() if location is not None else ():
            if leaf.line or leaf.file:
                one = messages.add()
                one.line = leaf.line
                one.file = self.files.setdefault(leaf.file, len(self.files))


def checksum(raw: bytes) -> bytes:
    """BLAKE2b of an external tensor's bytes."""
    return hashlib.blake2b(raw, digest_size=32).digest()


def from_proto(model: Any, name: str = "<model>", external: ReadExternal | None = None) -> Graph:
    """The graph of a `Model` message. The caller verifies it.

    Raises:
        FormatError: the message breaks the schema's rules or has a newer version; it names the place.
    """
    if not 1 <= model.ir_version <= IR_VERSION:
        raise FormatError(
            "the file has another version of the IR", where=name, got=model.ir_version, expected=f"1 to {IR_VERSION}",
            advice="a newer Pierian reads it" if model.ir_version > IR_VERSION else "this is no graph file",
        )  # fmt: skip
    return _Reader(name, list(model.files), external).graph(model.graph, "graph", 0)


class _Reader:
    def __init__(self, name: str, files: Sequence[str], external: ReadExternal | None) -> None:
        self.name = name
        self.files = files
        self.external = external

    def error(self, what: str, place: str, **parts: Any) -> FormatError:
        return FormatError(what, where=f"{self.name}, {place}", **parts)

    def graph(self, message: Any, place: str, depth: int) -> Graph:
        if depth > MAX_DEPTH:
            raise self.error("graphs are nested too deeply", place)
        if len(message.nodes) > MAX_NODES:
            raise self.error("too many nodes", place, got=len(message.nodes), expected=f"at most {MAX_NODES}")
        graph = Graph(message.name)
        graph.seed = message.seed
        values: list[Value] = []
        for variable in message.variables:
            self.variable(graph, variable, place)
        for position, one in enumerate(message.nodes):
            self.node(graph, one, values, f"{place}.nodes[{position}]", depth)
        for number in message.inputs:
            value = self.value(values, number, f"{place}.inputs")
            if value.node.op.name != "placeholder":
                raise self.error("only placeholders are inputs", place, got=value.node.describe())
            graph.add_input(value.node)
        outputs = [self.value(values, number, f"{place}.outputs") for number in message.outputs]
        if len(message.output_names) != len(outputs):
            raise self.error("every output needs a name", place, got=len(message.output_names), expected=len(outputs))
        graph.set_outputs(outputs, message.output_names)
        for variable in message.variables:
            if variable.update:
                graph.variables[variable.name].update = self.value(values, variable.update - 1, f"{place}.variables")
        return graph

    def variable(self, graph: Graph, message: Any, place: str) -> None:
        where = f"{place}.variables[{message.name!r}]"
        if not message.name or message.name in graph.variables:
            raise self.error("a variable's name is empty or used twice", where)
        initial = self.tensor(message.initial, where)
        graph.unique_name(message.name)
        graph.variables[message.name] = VariableDeclaration(
            message.name, initial.type, initial, message.trainable, None, self.location(message.locations, where)
        )

    def node(self, graph: Graph, message: Any, values: list[Value], place: str, depth: int) -> None:
        try:
            op = operator_named(message.op)
        except PierianError as error:
            raise self.error(error.what, place) from None
        inputs = [self.value(values, number, place) for number in message.inputs]
        attributes = {}
        for attribute in message.attributes:
            if attribute.name in attributes:
                raise self.error("an attribute is given twice", place, got=attribute.name)
            attributes[attribute.name] = self.attribute(attribute.value, f"{place}.{attribute.name}", 0)
        types = [self.type(type_, place) for type_ in message.outputs]
        if not types:
            raise self.error("a node makes at least one value", place)
        bodies = [self.graph(body, f"{place}.bodies[{i}]", depth + 1) for i, body in enumerate(message.bodies)]
        location = self.location(message.locations, place)
        node = graph.add_node(op, inputs, attributes, types, bodies, message.name, location)
        if node.name != message.name:
            raise self.error("a node's name is empty or used twice", place, got=message.name)
        values.extend(node.outputs)

    def value(self, values: Sequence[Value], number: int, place: str) -> Value:
        if not 0 <= number < len(values):
            raise self.error(
                "a value is not made before it is read", place, got=number, expected=f"below {len(values)}"
            )
        return values[number]

    def type(self, message: Any, place: str) -> TensorType:
        dtype = _DTYPES.get(message.dtype)
        if dtype is None:
            raise self.error("unknown element type", place, got=message.dtype, expected=", ".join(_DTYPES))
        return TensorType(dtype, [self.dim(dim, place) for dim in message.shape])

    def dim(self, message: Any, place: str) -> Dim:
        kind = message.WhichOneof("value")
        if kind == "known":
            if not 0 <= message.known < 1 << 62:
                raise self.error("a size is out of range", place, got=message.known)
            return int(message.known)
        if kind != "expression":
            raise self.error("a size is missing", place)
        return self.expression(message.expression, place)

    def expression(self, text: str, place: str) -> Dim:
        try:
            return parse_dim(text)
        except PierianError as error:
            raise self.error(error.what, place, got=text[:80]) from None

    def attribute(self, message: Any, place: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.error("attributes are nested too deeply", place)
        kind = message.WhichOneof("value")
        if kind is None:
            return None
        if kind == "dtype":
            found = _DTYPES.get(message.dtype)
            if found is None:
                raise self.error("unknown element type", place, got=message.dtype)
            return found
        if kind == "dim":
            return self.dim(message.dim, place)
        if kind == "tuple":
            return tuple(self.attribute(item, place, depth + 1) for item in message.tuple.items)
        if kind == "type":
            return self.type(message.type, place)
        if kind == "tensor":
            return self.tensor(message.tensor, place)
        return getattr(message, kind)

    def tensor(self, message: Any, place: str) -> Constant:
        type_ = self.type(message.type, place)
        if not type_.is_static:
            raise self.error("an array has known sizes", place, got=type_)
        shape = tuple(int(str(dim)) for dim in type_.shape)
        expected = math.prod(shape) * type_.dtype.itemsize
        if message.WhichOneof("content") == "external":
            raw = self.read_external(message.external, expected, place)
        else:
            raw = message.data
        if len(raw) != expected:
            raise self.error(
                "the data does not fill the array", place, got=f"{len(raw)} bytes", expected=f"{expected} bytes"
            )
        array = np.frombuffer(raw, dtype=type_.dtype.numpy.newbyteorder("<")).astype(type_.dtype.numpy)
        if type_.dtype.is_bool and array.size and array.view(np.uint8).max() > 1:
            raise self.error("a boolean is neither 0 nor 1", place)
        return Constant(array.reshape(shape))

    def read_external(self, message: Any, expected: int, place: str) -> bytes:
        if self.external is None:
            raise self.error("external data is not available here", place, got=message.file)
        if message.length != expected:
            raise self.error("the external data does not fill the array", place, got=message.length, expected=expected)
        raw = self.external(message.file, message.offset, message.length)
        if checksum(raw) != message.checksum:
            raise self.error("the external data is damaged", place, got=message.file, advice="restore the file")
        return raw

    def location(self, messages: Any, place: str) -> Location | None:
        leaves: list[Location | None] = []
        for one in messages:
            if not 0 <= one.file < len(self.files):
                raise self.error("a location names no file", place, got=one.file)
            leaves.append(Location(self.files[one.file], one.line))
        return union(leaves)
