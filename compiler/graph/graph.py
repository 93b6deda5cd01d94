"""The graph: nodes in order, inputs, outputs, variables; and the few ways it may change.

Operators, attributes and types are immutable. Edges and membership change through the methods here, which keep
`Value.uses` right. Nested bodies are graphs too; they are closed, so a graph never refers to values of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pierian.compiler.dim import Dim, Symbolic, symbol, symbols
from pierian.compiler.errors import ArgumentError, GraphError
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.graph.operator import Operator
from pierian.compiler.location import Location
from pierian.compiler.shape import TensorType


@dataclass(slots=True)
class VariableDeclaration:
    """State that lives from run to run.

    Attributes:
        name: unique among the graph's variables.
        type: element type and shape; static.
        initial: the value before the first run.
        trainable: whether optimizers change it.
        update: a value assigned after every run that reads the variable (a random stream's counter), or None.
    """

    name: str
    type: TensorType
    initial: Constant
    trainable: bool = True
    update: Value | None = None
    location: Location | None = field(default=None, compare=False)


class Graph:
    """A dataflow graph.

    Attributes:
        name: a word for messages and symbol names.
        nodes: the nodes, each after the makers of its inputs (an ordered set).
        inputs: the values fed from outside: placeholders, or a body's parameters.
        outputs: the values handed out, in order; of a body its results. Set with `set_outputs`.
        output_names: a name for each output; the value's own where the user gave none.
        variables: declarations by name.
        value_type: class of the values made in this graph.
    """

    def __init__(self, name: str = "graph", value_type: type[Value] = Value) -> None:
        self.name = name
        self.nodes: dict[Node, None] = {}
        self.inputs: list[Value] = []
        self.output_names: list[str] = []
        self.variables: dict[str, VariableDeclaration] = {}
        self.value_type = value_type
        self.seed = 0
        self._result = Node(_RESULT, (), {}, graph=self, name="result")
        self._names: dict[str, int] = {}
        self._symbols: set[str] = set()
        # Building bodies: the enclosing graph, and what was captured from it.
        self.parent: Graph | None = None
        self.captures: dict[Value, Value] = {}

    # --- reading -----------------------------------------------------------------------------------

    @property
    def outputs(self) -> tuple[Value, ...]:
        return self._result.inputs

    @property
    def result(self) -> Node:
        """The pseudo-node that uses the outputs; it is not among `nodes`."""
        return self._result

    def node_named(self, name: str) -> Node:
        """The node of that name.

        Raises:
            GraphError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise GraphError(f"graph {self.name!r} has no node named {name!r}")

    def value_named(self, name: str) -> Value:
        """The value of that name: `node`, `node:0`, `node:1`."""
        base, _, index = name.partition(":")
        node = self.node_named(base)
        position = int(index) if index.isdigit() else 0
        if position >= len(node.outputs):
            raise GraphError(f"node {base!r} has no output {position}", got=name)
        return node.outputs[position]

    def walk(self) -> Iterator[Node]:
        """Every node, those of nested bodies after the node that holds them."""
        for node in self.nodes:
            yield node
            for body in node.bodies:
                yield from body.walk()

    def dims(self) -> tuple[str, ...]:
        """The size symbols of the inputs, in order of appearance."""
        found: dict[str, None] = {}
        for value in self.inputs:
            for dim in value.shape:
                found.update(dict.fromkeys(sorted(symbols(dim))))
        return tuple(found)

    # --- naming ------------------------------------------------------------------------------------

    def unique_name(self, base: str) -> str:
        """`base`, or `base_1`, `base_2`, ... where it is taken; the name is taken from now on."""
        count = self._names.get(base)
        if count is None:
            self._names[base] = 0
            return base
        while True:
            count += 1
            name = f"{base}_{count}"
            if name not in self._names:
                self._names[base] = count
                self._names[name] = 0
                return name

    def fresh_symbol(self, base: str) -> Symbolic:
        """A size symbol not used in this graph so far."""
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in base)
        if not base or not (base[0].isalpha() or base[0] == "_"):
            base = "d" + base
        name, count = base, 0
        while name in self._symbols:
            count += 1
            name = f"{base}_{count}"
        return self.use_symbol(name)

    def use_symbol(self, name: str) -> Symbolic:
        """The size symbol `name`; shared by all that ask for it."""
        if not name.isidentifier():
            raise ArgumentError("a size symbol must be an identifier", got=name)
        self._symbols.add(name)
        return symbol(name)

    # --- building and changing ------------------------------------------------------------------------

    def add_node(
        self,
        op: Operator,
        inputs: Sequence[Value],
        attributes: dict[str, Any],
        types: Sequence[TensorType],
        bodies: Sequence[Graph] = (),
        name: str | None = None,
        location: Location | None = None,
    ) -> Node:
        """Append a node. Types are given: inference is the builder's duty."""
        node = Node(op, inputs, attributes, bodies, self.unique_name(name or op.name), location, self)
        node.outputs = tuple(self.value_type(node, i, type_) for i, type_ in enumerate(types))
        for value in node.inputs:
            value.uses[node] = value.uses.get(node, 0) + 1
        self.nodes[node] = None
        return node

    def add_input(self, node: Node) -> Value:
        """Register the output of a placeholder node as an input of the graph."""
        self.inputs.append(node.output)
        for dim in node.output.shape:
            self._symbols |= symbols(dim)
        return node.output

    def set_outputs(self, values: Iterable[Value], names: Iterable[str] | None = None) -> None:
        """Say what the graph hands out."""
        chosen = tuple(values)
        for value in chosen:
            if value.node.graph is not self:
                raise GraphError("an output belongs to another graph", where=value.name)
        self._set_inputs(self._result, chosen)
        given = list(names) if names is not None else unique_names([value.name for value in chosen])
        if len(given) != len(chosen):
            raise ArgumentError("as many names as outputs are needed", got=len(given), expected=len(chosen))
        self.output_names = given

    def set_input(self, node: Node, position: int, value: Value) -> None:
        """Let a node read another value at one position."""
        inputs = list(node.inputs)
        inputs[position] = value
        self._set_inputs(node, tuple(inputs))

    def replace_uses(self, old: Value, new: Value) -> None:
        """Let every reader of `old` (outputs and variable updates included) read `new`."""
        if old is new:
            return
        for node in list(old.uses):
            self._set_inputs(node, tuple(new if value is old else value for value in node.inputs))
        for declaration in self.variables.values():
            if declaration.update is old:
                declaration.update = new

    def remove(self, node: Node) -> None:
        """Take out a node that nobody reads."""
        if any(value.uses for value in node.outputs):
            raise GraphError("a node that is still read cannot be removed", where=node.describe())
        self._set_inputs(node, ())
        del self.nodes[node]
        node.graph = None

    def sort(self) -> None:
        """Restore topological order after changes, stably: a node moves only as far as it must.

        Raises:
            GraphError: the nodes form a cycle.
        """
        order: dict[Node, None] = {}
        state: dict[Node, int] = {}
        for root in self.nodes:
            stack = [root]
            while stack:
                node = stack[-1]
                if node in order:
                    stack.pop()
                    continue
                if state.get(node) == 1:
                    order[node] = None
                    stack.pop()
                    continue
                state[node] = 1
                for value in reversed(node.inputs):
                    maker = value.node
                    if maker in order:
                        continue
                    if state.get(maker) == 1:
                        raise GraphError("the graph has a cycle", where=maker.describe())
                    stack.append(maker)
        self.nodes = order

    def clone(self, outputs: Sequence[Value] | None = None, value_type: type[Value] = Value) -> Graph:
        """A copy that shares operators, attributes and constants. See `clone_with_map`."""
        return self.clone_with_map(outputs, value_type)[0]

    def clone_with_map(
        self, outputs: Sequence[Value] | None = None, value_type: type[Value] = Value
    ) -> tuple[Graph, dict[Value, Value]]:
        """A copy, and where each value went.

        With `outputs`, only the nodes those need are copied, and they become the outputs; all inputs stay.
        """
        kept = None if outputs is None else _needed(outputs)
        copy = Graph(self.name, value_type)
        copy.seed = self.seed
        copy._names = dict(self._names)
        copy._symbols = set(self._symbols)
        mapping: dict[Value, Value] = {}
        inputs = {value.node for value in self.inputs}
        for node in self.nodes:
            if kept is not None and node not in kept and node not in inputs:
                continue
            fresh = Node(
                node.op,
                tuple(mapping[value] for value in node.inputs),
                node.attributes,
                tuple(body.clone(None, value_type) for body in node.bodies),
                node.name,
                node.location,
                copy,
            )
            fresh.outputs = tuple(value_type(fresh, v.index, v.type) for v in node.outputs)
            for value in fresh.inputs:
                value.uses[fresh] = value.uses.get(fresh, 0) + 1
            copy.nodes[fresh] = None
            mapping.update(zip(node.outputs, fresh.outputs, strict=True))
        copy.inputs = [mapping[value] for value in self.inputs]
        chosen = self.outputs if outputs is None else tuple(outputs)
        copy.set_outputs((mapping[value] for value in chosen), self.output_names if outputs is None else None)
        for name, declaration in self.variables.items():
            update = declaration.update
            copy.variables[name] = VariableDeclaration(
                name,
                declaration.type,
                declaration.initial,
                declaration.trainable,
                mapping.get(update) if update is not None else None,
                declaration.location,
            )
        return copy, mapping

    def _set_inputs(self, node: Node, inputs: tuple[Value, ...]) -> None:
        for value in node.inputs:
            left = value.uses[node] - 1
            if left:
                value.uses[node] = left
            else:
                del value.uses[node]
        node.inputs = inputs
        for value in inputs:
            value.uses[node] = value.uses.get(node, 0) + 1

    # --- files -------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the graph: `.pb` binary protobuf, `.pbtxt` protobuf text, `.pir` readable typed text. Atomic."""
        from pierian.compiler.graph.files import save  # files pull in protobuf; graphs are built without it

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> Graph:
        """Read a graph written by `save`. Executes nothing; the graph is verified.

        Raises:
            FormatError: the file is truncated, malformed, too large or of a newer version; it names the place.
        """
        from pierian.compiler.graph.files import load

        return load(path)

    def __str__(self) -> str:
        from pierian.compiler.graph.printer import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        return f"<Graph {self.name!r}: {len(self.nodes)} nodes>"


def _result() -> None:
    """Uses the outputs of a graph."""


_RESULT = Operator(_result, name="result", public=False)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, those that come again with `_1`, `_2`, ... behind them."""
    taken: set[str] = set()
    found = []
    for name in names:
        count, one = 0, name
        while one in taken:
            count += 1
            one = f"{name}_{count}"
        taken.add(one)
        found.append(one)
    return found


def _needed(outputs: Iterable[Value]) -> set[Node]:
    seen: set[Node] = set()
    stack = [value.node for value in outputs]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(value.node for value in node.inputs)
    return seen


def substitute_sizes(shape: Iterable[Dim], rule: Callable[[Dim], Dim]) -> tuple[Dim, ...]:
    """A shape with every size replaced."""
    return tuple(rule(dim) for dim in shape)
