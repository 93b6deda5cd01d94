"""The verifier: what every graph must satisfy before a pass may look at it.

1. names: every node's name is unique in its graph and not empty.
2. order: a node stands after the makers of its inputs, so there is no cycle and nothing dangles.
3. closed: inputs, outputs and updates belong to the graph itself, never to another one.
4. uses: the recorded readers of every value are exactly its readers.
5. schema: a node has its operator's inputs and attributes, no other.
6. types: the types of a node's outputs are those its operator infers.
7. inputs: the graph's inputs are its placeholders, each once.
8. outputs: every output has a name, and no two share one.
9. variables: what is read or assigned is declared, with that type, not inside bodies; an update is an assignment.
10. bodies: only operators with bodies have them, and bodies satisfy 1 to 9.
"""

from __future__ import annotations

from typing import Any

from pierian.compiler.errors import GraphError, PierianError
from pierian.compiler.graph.builder import infer
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value

MAX_DEPTH = 32


def verify(graph: Graph, where: str = "", _depth: int = 0) -> None:
    """Check all invariants.

    Raises:
        GraphError: the first one that does not hold, with the node at fault.
    """
    if _depth > MAX_DEPTH:
        raise GraphError(
            "bodies are nested too deeply", expected=f"at most {MAX_DEPTH} levels", where=where or graph.name
        )
    _Verifier(graph, where, _depth).run()


class _Verifier:
    def __init__(self, graph: Graph, where: str, depth: int) -> None:
        self.graph = graph
        self.where = where
        self.depth = depth

    def run(self) -> None:
        seen: set[Value] = set()
        names: set[str] = set()
        for node in self.graph.nodes:
            self._name(node, names)
            self._order(node, seen)
            self._schema(node)
            self._bodies(node)
            self._types(node)
            self._variables(node)
            seen.update(node.outputs)
        self._inputs()
        self._outputs(seen)
        self._uses()
        self._declarations(seen)

    def fail(self, invariant: str, what: str, node: Node | None = None, **parts: Any) -> GraphError:
        place = [part for part in (self.where, node.describe() if node is not None else self.graph.name) if part]
        return GraphError(
            f"{invariant}: {what}",
            where=", ".join(place),
            location=node.location if node is not None else None,
            **parts,
        )

    def _name(self, node: Node, names: set[str]) -> None:
        if not node.name or node.name in names:
            raise self.fail("names", f"the name {node.name!r} is {'empty' if not node.name else 'used twice'}", node)
        names.add(node.name)

    def _order(self, node: Node, seen: set[Value]) -> None:
        if node.graph is not self.graph:
            raise self.fail("closed", "the node belongs to another graph", node)
        for value in node.inputs:
            if value not in seen:
                invariant = "closed" if value.node.graph is not self.graph else "order"
                raise self.fail(invariant, f"input {value.name!r} is not made before it is read", node)

    def _schema(self, node: Node) -> None:
        op = node.op
        expected = {parameter.name for parameter in op.attribute_parameters}
        if set(node.attributes) != expected:
            raise self.fail(
                "schema", "the attributes are not the operator's", node, got=", ".join(node.attributes) or "none",
                expected=", ".join(sorted(expected)) or "none",
            )  # fmt: skip
        tensors = op.tensor_parameters
        if any(parameter.kind == "tensors" for parameter in tensors):
            return
        least = sum(parameter.kind == "tensor" for parameter in tensors)
        if not least <= len(node.inputs) <= len(tensors):
            raise self.fail(
                "schema", "the number of inputs is wrong", node, got=len(node.inputs), expected=len(tensors)
            )

    def _types(self, node: Node) -> None:
        try:
            types = infer(node.op, node.inputs, dict(node.attributes), node.bodies, node.location, node.name)
        except PierianError as error:
            raise self.fail("types", error.what, node, got=error.got, expected=error.expected) from None
        except (RecursionError, MemoryError):
            raise
        except Exception as error:  # attributes of a kind that the rule does not expect
            raise self.fail(
                "types", "the attributes have no meaning", node, got=f"{type(error).__name__}: {error}"
            ) from None
        declared = tuple(value.type for value in node.outputs)
        if types != declared:
            raise self.fail("types", "outputs do not have the inferred types", node, got=declared, expected=types)

    def _variables(self, node: Node) -> None:
        if node.op.name not in ("variable_read", "variable_assign"):
            return
        name = node.attributes["variable"]
        declaration = self.graph.variables.get(name)
        if self.depth or declaration is None:
            raise self.fail("variables", f"variable {name!r} is not declared here", node)
        if declaration.type != node.attributes["type"]:
            raise self.fail("variables", "the type is not the declared one", node, expected=declaration.type)

    def _bodies(self, node: Node) -> None:
        if bool(node.bodies) != node.op.has_bodies:
            raise self.fail("bodies", "bodies and operator do not fit", node, got=f"{len(node.bodies)} bodies")
        for body in node.bodies:
            if body.variables:
                raise self.fail("variables", "a body declares variables", node)
            verify(body, f"{self.where + ', ' if self.where else ''}body of {node.name!r}", self.depth + 1)

    def _inputs(self) -> None:
        placeholders = [node.output for node in self.graph.nodes if node.op.name == "placeholder"]
        if {id(value) for value in placeholders} != {id(value) for value in self.graph.inputs} or len(
            placeholders
        ) != len(self.graph.inputs):
            raise self.fail("inputs", "the inputs are not the placeholders, each once")

    def _outputs(self, seen: set[Value]) -> None:
        for value in self.graph.outputs:
            if value not in seen:
                raise self.fail("closed", f"output {value.name!r} is not made in the graph")
        names = self.graph.output_names
        if len(names) != len(self.graph.outputs) or len(set(names)) != len(names):
            raise self.fail("outputs", "every output needs a name of its own", got=", ".join(names))

    def _uses(self) -> None:
        counted: dict[Value, dict[Node, int]] = {}
        for node in (*self.graph.nodes, self.graph.result):
            for value in node.inputs:
                users = counted.setdefault(value, {})
                users[node] = users.get(node, 0) + 1
        for node in self.graph.nodes:
            for value in node.outputs:
                if value.uses != counted.get(value, {}):
                    raise self.fail("uses", f"the readers of {value.name!r} are recorded wrongly", node)

    def _declarations(self, seen: set[Value]) -> None:
        for name, declaration in self.graph.variables.items():
            update = declaration.update
            if declaration.initial.type != declaration.type:
                raise self.fail(
                    "variables", f"the initial value of {name!r} has another type", got=declaration.initial.type
                )
            if update is None:
                continue
            if update not in seen:
                raise self.fail("closed", f"the update of variable {name!r} is not made in the graph")
            if update.node.op.name != "variable_assign" or update.node.attributes["variable"] != name:
                raise self.fail("variables", f"the update of {name!r} does not assign it", update.node)
