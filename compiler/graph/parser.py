"""Reading the readable form (see `printer`). Nothing is executed; the caller verifies the result."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, Symbolic, parse_dim
from pierian.compiler.dtype import ALL, DType
from pierian.compiler.errors import FormatError, PierianError
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph, VariableDeclaration
from pierian.compiler.graph.lexer import Source, Token, tokenize, unquoted
from pierian.compiler.graph.node import Value
from pierian.compiler.graph.printer import IR_VERSION
from pierian.compiler.location import Location, union
from pierian.compiler.ops.definition import operator_named
from pierian.compiler.shape import TensorType

MAX_DEPTH = 32
_DTYPES = {dtype.name: dtype for dtype in ALL}


def parse_graph(text: str, name: str = "<text>") -> Graph:
    """The graph a text stands for.

    Args:
        text: what `print_graph` gives.
        name: the file's name, for messages.

    Raises:
        FormatError: the text is malformed; it names line and column.
    """
    return _Parser(Source(text, name)).model()


class _Parser:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = tokenize(source)
        self.position = 0

    # --- words ------------------------------------------------------------------------------------------------

    @property
    def next(self) -> Token:
        return self.tokens[self.position]

    def error(self, what: str, token: Token | None = None, **parts: object) -> FormatError:
        return self.source.error(what, (token or self.next).offset, **parts)

    def take(self, kind: str, text: str | None = None) -> Token:
        token = self.next
        if token.kind != kind or (text is not None and token.text != text):
            raise self.error("unexpected word", got=repr(token.text) or "the end", expected=text or f"a {kind}")
        self.position += 1
        return token

    def accept(self, text: str) -> bool:
        if self.next.text == text and self.next.kind in ("mark", "word"):
            self.position += 1
            return True
        return False

    def string(self) -> str:
        token = self.take("string")
        return unquoted(self.source, token)

    def integer(self) -> int:
        token = self.take("number")
        try:
            return int(token.text)
        except ValueError:
            raise self.error("an integer is needed here", token, got=token.text) from None

    # --- graphs -----------------------------------------------------------------------------------------------

    def model(self) -> Graph:
        self.take("word", "pierian")
        token = self.next
        version = self.integer()
        if not 1 <= version <= IR_VERSION:
            raise self.error(
                "the file has another version of the IR", token, got=version, expected=f"up to {IR_VERSION}",
                advice="a newer Pierian reads it",
            )  # fmt: skip
        graph = self.graph(0)
        if self.next.kind != "end":
            raise self.error("unexpected text behind the graph", got=repr(self.next.text))
        return graph

    def graph(self, depth: int) -> Graph:
        if depth > MAX_DEPTH:
            raise self.error("graphs are nested too deeply")
        self.take("word", "graph")
        graph = Graph(self.string())
        values: dict[str, Value] = {}
        self.take("mark", "(")
        inputs = []
        while self.next.text != ")":
            inputs.append(self.take("value"))
            if not self.accept(","):
                break
        self.take("mark", ")")
        if self.accept("seed"):
            graph.seed = self.integer()
        self.take("mark", "{")
        updates: list[tuple[VariableDeclaration, Token]] = []
        while self.next.text == "variable":
            self.variable(graph, updates)
        while self.next.kind == "value":
            self.node(graph, values, depth)
        self.results(graph, values)
        self.take("mark", "}")
        for token in inputs:
            value = self.value(values, token)
            if value.node.op.name != "placeholder":
                raise self.error("only placeholders are inputs", token)
            graph.add_input(value.node)
        for declaration, token in updates:
            declaration.update = self.value(values, token)
        return graph

    def variable(self, graph: Graph, updates: list[tuple[VariableDeclaration, Token]]) -> None:
        self.take("word", "variable")
        token = self.next
        name = self.string()
        if name in graph.variables:
            raise self.error("the variable is declared twice", token)
        self.take("mark", ":")
        type_ = self.type()
        self.take("mark", "=")
        initial = self.array(type_)
        trainable = self.accept("trainable")
        declaration = VariableDeclaration(name, type_, initial, trainable)
        if self.accept("update"):
            updates.append((declaration, self.take("value")))
        declaration.location = self.place()
        graph.unique_name(name)
        graph.variables[name] = declaration

    def node(self, graph: Graph, values: dict[str, Value], depth: int) -> None:
        token = self.take("value")
        name, index = self.split(token)
        if index:
            raise self.error("a node's name has no output number", token)
        self.take("mark", "=")
        op_token = self.take("word")
        try:
            op = operator_named(op_token.text)
        except PierianError as error:
            raise self.error(error.what, op_token) from None
        self.take("mark", "(")
        inputs = []
        while self.next.text != ")":
            inputs.append(self.value(values, self.take("value")))
            if not self.accept(","):
                break
        self.take("mark", ")")
        attributes: dict[str, Any] = {}
        if self.accept("{"):
            while self.next.text != "}":
                key = self.take("word")
                if key.text in attributes:
                    raise self.error("the attribute is given twice", key)
                self.take("mark", "=")
                attributes[key.text] = self.attribute(0)
                if not self.accept(","):
                    break
            self.take("mark", "}")
        self.take("mark", ":")
        types = [self.type()]
        while self.accept(","):
            types.append(self.type())
        location = self.place()
        bodies = []
        while self.next.text == "graph":
            bodies.append(self.graph(depth + 1))
        node = graph.add_node(op, inputs, attributes, types, bodies, name, location)
        if node.name != name:
            raise self.error("the name is used twice", token, got=name)
        for value in node.outputs:
            values[value.name] = value

    def results(self, graph: Graph, values: dict[str, Value]) -> None:
        self.take("word", "return")
        outputs, names = [], []
        while self.next.kind == "value":
            outputs.append(self.value(values, self.take("value")))
            self.take("word", "as")
            names.append(self.string())
            if not self.accept(","):
                break
        graph.set_outputs(outputs, names)

    def split(self, token: Token) -> tuple[str, int]:
        text = token.text[1:]
        base, separator, index = text.rpartition(":")
        if separator and index.isdigit() and not text.endswith('"'):
            text, number = base, int(index)
        else:
            number = 0
        return (unquoted(self.source, token, text) if text.startswith('"') else text), number

    def value(self, values: dict[str, Value], token: Token) -> Value:
        name, index = self.split(token)
        found = values.get(name if not index else f"{name}:{index}")
        if found is None:
            raise self.error("the value is not made before it is read", token, got=token.text)
        return found

    # --- types, attributes, places -----------------------------------------------------------------------------

    def dtype(self) -> DType:
        token = self.take("word")
        found = _DTYPES.get(token.text)
        if found is None:
            raise self.error("unknown element type", token, got=token.text, expected=", ".join(_DTYPES))
        return found

    def type(self) -> TensorType:
        return self.shape_of(self.dtype())

    def shape_of(self, dtype: DType) -> TensorType:
        """The sizes in brackets behind an element type; expressions are read as they stand."""
        opening = self.take("mark", "[")
        text = self.source.text
        closing = text.find("]", opening.offset)
        if closing < 0 or closing - opening.offset > 4096:
            raise self.error("the shape is not closed", opening)
        inside = text[opening.offset + 1 : closing]
        while self.next.offset < closing and self.next.kind != "end":
            self.position += 1
        self.take("mark", "]")
        sizes: list[Dim] = []
        for part in _split_sizes(inside):
            sizes.append(self.size(part, opening))
        return TensorType(dtype, sizes)

    def size(self, text: str, token: Token) -> Dim:
        try:
            dim = parse_dim(text)
        except PierianError as error:
            raise self.error(error.what, token, got=text) from None
        if isinstance(dim, int) and not 0 <= dim < 1 << 62:
            raise self.error("the size is out of range", token, got=dim)
        return dim

    def attribute(self, depth: int) -> Any:
        token = self.next
        if depth > MAX_DEPTH:
            raise self.error("attributes are nested too deeply", token)
        if token.kind == "string":
            return self.string()
        if token.kind == "number":
            self.position += 1
            return self.number(token)
        if token.kind == "size":
            self.position += 1
            try:
                dim = parse_dim(token.text[1:-1])
            except PierianError as error:
                raise self.error(error.what, token) from None
            if not isinstance(dim, Symbolic):
                raise self.error("a known size is written as an integer", token)
            return dim
        if self.accept("("):
            items = []
            while self.next.text != ")":
                items.append(self.attribute(depth + 1))
                if not self.accept(","):
                    break
            self.take("mark", ")")
            return tuple(items)
        if token.text in ("none", "true", "false"):
            self.position += 1
            return {"none": None, "true": True, "false": False}[token.text]
        dtype = self.dtype()
        if self.next.text != "[":
            return dtype
        type_ = self.shape_of(dtype)
        if self.next.text in ("[", "base64"):
            return self.array(type_)
        return type_

    def number(self, token: Token) -> int | float:
        text = token.text
        try:
            if text in ("nan", "inf", "-inf"):
                return float(text)
            return float(text) if any(c in text for c in ".eE") else int(text)
        except (ValueError, OverflowError):
            raise self.error("malformed number", token, got=text[:40]) from None

    def array(self, type_: TensorType) -> Constant:
        token = self.next
        if not type_.is_static:
            raise self.error("an array has known sizes", token, got=type_)
        size = math.prod(int(str(dim)) for dim in type_.shape)
        shape = tuple(int(str(dim)) for dim in type_.shape)
        if self.accept("base64"):
            text = self.take("string").text[1:-1]
            try:
                raw = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                raise self.error("malformed base64", token) from None
            if len(raw) != size * type_.dtype.itemsize:
                raise self.error(
                    "the data does not fill the array", token, got=len(raw), expected=size * type_.dtype.itemsize
                )
            little = np.frombuffer(raw, dtype=type_.dtype.numpy.newbyteorder("<"))
            return Constant(little.astype(type_.dtype.numpy).reshape(shape))
        self.take("mark", "[")
        items: list[Any] = []
        while self.next.text != "]":
            item = self.next
            if item.text in ("true", "false"):
                self.position += 1
                items.append(item.text == "true")
            else:
                items.append(self.number(self.take("number")))
            if not self.accept(","):
                break
        self.take("mark", "]")
        if len(items) != size:
            raise self.error("the data does not fill the array", token, got=len(items), expected=size)
        try:
            if type_.dtype.is_float:
                array = np.array(items, dtype=np.float64).astype(type_.dtype.numpy)
            else:
                array = np.array(items, dtype=type_.dtype.numpy)
        except (OverflowError, ValueError, TypeError) as error:
            raise self.error("a number does not fit the element type", token, got=str(error)) from None
        return Constant(array.reshape(shape))

    def place(self) -> Location | None:
        if not self.accept("@"):
            return None
        leaves: list[Location | None] = []
        while True:
            file = self.string()
            self.take("mark", ":")
            leaves.append(Location(file, self.integer()))
            if not self.accept(","):
                break
        return union(leaves)


def _split_sizes(text: str) -> list[str]:
    """Sizes separated by commas that stand outside parentheses."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    last = text[start:]
    return [*parts, last] if parts or last.strip() else []
