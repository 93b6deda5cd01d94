"""What a rewrite rule looks for: patterns over nodes, and what a match binds.

    Pattern   Var(name) | Number(name, test) | Op(operators, inputs, name)

A `Var` matches any value, the same value wherever its name stands. A `Number` matches a constant whose elements are all
one number. An `Op` matches the first output of a node of one of its operators whose inputs match. Nothing is
tried in another order: constants stand on the right by a rule of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Union

from pierian.compiler.graph.node import Node, Value

Number_ = Union[bool, int, float]


@dataclass(frozen=True, slots=True)
class Var:
    """Any value."""

    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """A constant with one element, or all elements equal, whose number passes `test`."""

    name: str
    test: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class Op:
    """A node of one of `operators` with these inputs; `inputs` None takes any.

    `name` is what the match calls the node, for its attributes; the root is always called `root`.
    """

    operators: tuple[str, ...]
    inputs: tuple[Pattern, ...] | None
    name: str = ""


Pattern = Union[Var, Number, Op]


def var(name: str) -> Var:
    """A pattern for any value."""
    return Var(name)


def number(name: str, test: Callable[[Any], bool] | None = None) -> Number:
    """A pattern for a constant number."""
    return Number(name, test)


def op(operators: str, *inputs: Pattern, name: str = "") -> Op:
    """A pattern for a node; several operators are separated by `|`, inputs `...` are any."""
    return Op(tuple(operators.split("|")), inputs, name)


def any_op(operators: str, name: str = "") -> Op:
    """A pattern for a node with whatever inputs."""
    return Op(tuple(operators.split("|")), None, name)


@dataclass(slots=True)
class Match:
    """What a pattern found.

    Attributes:
        root: the node at the root.
        values: by the names of variables and numbers.
        numbers: the number of each `Number`.
        nodes: by the names of inner operators.
        matched: all nodes that matched an `Op`, the root first; a replacement comes from their lines.
    """

    root: Node
    values: dict[str, Value] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    matched: list[Node] = field(default_factory=list)

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    def attribute(self, name: str, node: str = "") -> Any:
        """An attribute of the root, or of the inner node called `node`."""
        return (self.nodes[node] if node else self.root).attributes[name]


def match(pattern: Op, root: Node) -> Match | None:
    """The match of `pattern` at a node, or None."""
    found = Match(root)
    return found if _match_node(pattern, root, found) else None


def _match_node(pattern: Op, node: Node, found: Match) -> bool:
    if node.op.name not in pattern.operators:
        return False
    found.matched.append(node)
    if pattern.name:
        found.nodes[pattern.name] = node
    if pattern.inputs is None:
        return True
    if len(pattern.inputs) != len(node.inputs):
        return False
    return all(_match_value(one, value, found) for one, value in zip(pattern.inputs, node.inputs, strict=True))


def _match_value(pattern: Pattern, value: Value, found: Match) -> bool:
    if isinstance(pattern, Op):
        return value.index == 0 and _match_node(pattern, value.node, found)
    if isinstance(pattern, Number):
        number_ = constant_number(value)
        if number_ is None or (pattern.test is not None and not pattern.test(number_)):
            return False
        found.numbers[pattern.name] = number_
    known = found.values.setdefault(pattern.name, value)
    return known is value


def constant_number(value: Value) -> Any:
    """The number that every element of a constant is, as a Python number; None for anything else."""
    node = value.node
    name = node.op.name
    if name == "constant":
        array = node.attributes["value"].array
        return array.reshape(-1)[0].item() if array.size == 1 else None
    if name == "zeros":
        return value.dtype.numpy.type(0).item()
    if name == "ones":
        return value.dtype.numpy.type(1).item()
    if name == "full":
        return value.dtype.numpy.type(node.attributes["value"]).item()
    if name == "broadcast_to":
        return constant_number(node.inputs[0])
    return None
