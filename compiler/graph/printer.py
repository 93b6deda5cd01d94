"""The readable form of a graph (`.pir`); `parser` reads it back to an equal graph.

    pierian 1

    graph "linear" (%x) {
      variable "w": float32[3] = [1.0, 2.0, 3.0] trainable
      %x = placeholder() {type = float32[n, 3]} : float32[n, 3]  @"model.py":12
      %w/read = variable_read() {variable = "w", type = float32[3]} : float32[3]
      %multiply = multiply(%x, %w/read) : float32[n, 3]
      return %multiply as "y"
    }

A value is `%` and the name of its node, with `:1` for a second output. Symbolic sizes in attributes stand in angle brackets. Arrays
are lists of numbers where that is short and exact, else the bytes in base64.
"""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

import numpy as np

from pierian.compiler.dim import Symbolic
from pierian.compiler.dtype import DType
from pierian.compiler.errors import GraphError
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.location import Location
from pierian.compiler.shape import TensorType

IR_VERSION = 1
PLAIN = re.compile(r"[A-Za-z_][\w./-]*\Z")
# Arrays of up to this many elements are written as numbers.
_SHORT = 16


def print_graph(graph: Graph, locations: bool = True) -> str:
    """The whole text, version line included."""
    return f"pierian {IR_VERSION}\n\n" + "\n".join(_graph(graph, "", locations)) + "\n"


def _graph(graph: Graph, indent: str, locations: bool) -> list[str]:
    inputs = ", ".join(reference(value) for value in graph.inputs)
    seed = f" seed {graph.seed}" if graph.seed else ""
    lines = [f"{indent}graph {quoted(graph.name)} ({inputs}){seed} {{"]
    inner = indent + "  "
    for declaration in graph.variables.values():
        text = f"{inner}variable {quoted(declaration.name)}: {declaration.type} = {array_text(declaration.initial)}"
        text += " trainable" if declaration.trainable else ""
        if declaration.update is not None:
            text += f" update {reference(declaration.update)}"
        lines.append(text + _place(declaration.location, locations))
    for node in graph.nodes:
        lines += _node(node, inner, locations)
    outputs = ", ".join(
        f"{reference(value)} as {quoted(name)}" for value, name in zip(graph.outputs, graph.output_names, strict=True)
    )
    lines += [f"{inner}return {outputs}".rstrip(), indent + "}"]
    return lines


def _node(node: Node, indent: str, locations: bool) -> list[str]:
    inputs = ", ".join(map(reference, node.inputs))
    text = f"{indent}%{_name(node.name)} = {node.op.name}({inputs})"
    if node.attributes:
        text += " {" + ", ".join(f"{key} = {attribute_text(value)}" for key, value in node.attributes.items()) + "}"
    text += " : " + ", ".join(str(value.type) for value in node.outputs)
    if not node.bodies:
        return [text + _place(node.location, locations)]
    lines = [text + _place(node.location, locations)]
    for body in node.bodies:
        lines += _graph(body, indent + "  ", locations)
    return lines


def reference(value: Value) -> str:
    """`%name` or `%name:1`."""
    return f"%{_name(value.node.name)}" + (f":{value.index}" if value.index else "")


def _name(name: str) -> str:
    return name if PLAIN.match(name) else quoted(name)


def quoted(text: str) -> str:
    """A string with JSON's escapes."""
    return json.dumps(text)


def attribute_text(value: Any) -> str:
    """One attribute's value."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (DType, TensorType)):
        return str(value)
    if isinstance(value, Symbolic):
        return f"<{value}>"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(attribute_text, value)) + ")"
    if isinstance(value, Constant):
        return f"{value.type} {array_text(value)}"
    raise GraphError("an attribute of this kind has no text", got=repr(value)[:80])


def float_text(value: float) -> str:
    """A float that reads back to the same bits; a NaN reads back as the standard one."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = repr(value)
    return text if any(c in text for c in ".en") else text + ".0"


def array_text(constant: Constant) -> str:
    """The elements of an array."""
    array = constant.array
    if array.size <= _SHORT:
        items = [_element_text(item) for item in array.reshape(-1)]
        if _reads_back(items, array):
            return "[" + ", ".join(items) + "]"
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return f'base64 "{base64.b64encode(little.tobytes()).decode()}"'


def _element_text(item: Any) -> str:
    if item.dtype.kind == "b":
        return "true" if item else "false"
    if item.dtype.kind == "f":
        return float_text(float(str(item))) if np.isfinite(item) else float_text(float(item))
    return str(int(item))


def _reads_back(items: list[str], array: np.ndarray[Any, Any]) -> bool:
    if array.dtype.kind != "f":
        return True
    again = np.array([float(item) for item in items], dtype=np.float64).astype(array.dtype)
    return again.tobytes() == array.reshape(-1).tobytes()


def _place(location: Location | None, wanted: bool) -> str:
    if location is None or not wanted:
        return ""
    leaves = [leaf for leaf in location.leaves() if leaf.line or leaf.file]
    return "  @" + ", ".join(f"{quoted(leaf.file)}:{leaf.line}" for leaf in leaves) if leaves else ""
