"""Closing a graph over its state: variables become inputs and outputs, so that what is compiled is a pure function.

graph + feeds + fetches  ->  graph(feeds, values of variables read) -> fetches, new values of variables assigned
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.errors import FeedError, GraphError
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import infer
from pierian.compiler.graph.graph import Graph, unique_names
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops.definition import operator_named
from pierian.compiler.shape import TensorType


@frozen
class Signature:
    """What a compiled graph takes and gives, in order: inputs are feeds then variables read; outputs are fetches
    then variables assigned.

    Attributes:
        feeds, fetches: names and types.
        reads, assigns: names and types of variables.
    """

    feeds: tuple[tuple[str, TensorType], ...]
    reads: tuple[tuple[str, TensorType], ...]
    fetches: tuple[tuple[str, TensorType], ...]
    assigns: tuple[tuple[str, TensorType], ...]

    def updates(self) -> list[tuple[int, int | None]]:
        """The position of each output that is a variable's new value, and that of the input with its old one if there is one."""
        reads = {name: position for position, (name, _) in enumerate(self.reads, len(self.feeds))}
        return [(position, reads.get(name)) for position, (name, _) in enumerate(self.assigns, len(self.fetches))]

    def with_variables(self, reads: Sequence[str], assigns: Sequence[str]) -> Signature:
        """The same with the last feeds and fetches as values of variables, named so: variables that the graph does not know of."""
        feeds, fetches = len(self.feeds) - len(reads), len(self.fetches) - len(assigns)
        return Signature(
            self.feeds[:feeds],
            tuple((name, type_) for name, (_, type_) in zip(reads, self.feeds[feeds:], strict=True)),
            self.fetches[:fetches],
            tuple((name, type_) for name, (_, type_) in zip(assigns, self.fetches[fetches:], strict=True)),
        )


def close_state(
    graph: Graph,
    feeds: Sequence[Value],
    fetches: Sequence[Value],
    names: Sequence[str] | None = None,
    effects: Sequence[Value] = (),
) -> tuple[Graph, Signature]:
    """The part of `graph` that `fetches` need, as a graph without variables. The given graph is not changed.

    A fed value is taken from the caller whatever its node computes. Every read of a variable is the value from
    before the run; an assignment that is among the needed nodes takes effect after it. `effects` are needed too, but
    not handed back.

    Raises:
        FeedError: a placeholder is needed and not fed.
        GraphError: one run would assign a variable twice.
    """
    return _Closer(graph, feeds, names).close(fetches, effects)


def close_for_compilation(
    graph: Graph,
    feeds: Sequence[Value] | None = None,
    fetches: Sequence[Value] | None = None,
    effects: Sequence[Value] = (),
) -> tuple[Graph, Signature]:
    """`close_state` with the graph's own inputs and outputs as defaults.

    A graph without declared outputs hands out every value that nobody reads.
    """
    names = None
    if fetches is None:
        fetches, names = graph.outputs, graph.output_names
        if not fetches:
            fetches = [value for node in graph.nodes for value in node.outputs if not value.uses]
            names = None
    if feeds is None:
        feeds = graph.inputs
    return close_state(graph, feeds, fetches, names, effects)


class _Closer:
    def __init__(self, graph: Graph, feeds: Sequence[Value], names: Sequence[str] | None) -> None:
        self.source = graph
        self.feeds = feeds
        self.names = names
        self.target = Graph(graph.name)
        self.target._symbols = set(graph._symbols)
        self.mapping: dict[Value, Value] = {}
        self.reads: dict[str, Value] = {}
        self.assigns: dict[str, tuple[Value, Node]] = {}

    def close(self, fetches: Sequence[Value], effects: Sequence[Value]) -> tuple[Graph, Signature]:
        fed = dict.fromkeys(self.feeds)
        needed = self._needed((*fetches, *effects), fed)
        for value in fed:
            self.mapping[value] = self._input(value.name.replace(":", "_"), value.type)
        for node in self._in_order(needed):
            self._copy(node, fed)
        outputs = [self.mapping[value] for value in fetches]
        outputs += [value for value, _ in self.assigns.values()]
        names = list(self.names) if self.names is not None else unique_names([value.name for value in fetches])
        self.target.set_outputs(outputs, unique_names([*names, *(f"{name}_next" for name in self.assigns)]))
        signature = Signature(
            tuple((value.name, value.type) for value in fed),
            tuple((name, value.type) for name, value in self.reads.items()),
            tuple((name, value.type) for name, value in zip(names, fetches, strict=True)),
            tuple((name, value.type) for name, (value, _) in self.assigns.items()),
        )
        return self.target, signature

    def _needed(self, fetches: Sequence[Value], fed: dict[Value, None]) -> set[Node]:
        seen: set[Node] = set()
        stack = [value for value in fetches if value not in fed]
        while stack:
            node = stack.pop().node
            if node in seen:
                continue
            seen.add(node)
            stack.extend(value for value in node.inputs if value not in fed)
            if node.op.name == "variable_read":
                declaration = self.source.variables[node.attributes["variable"]]
                if declaration.update is not None and declaration.update not in fed:
                    stack.append(declaration.update)
        return seen

    def _in_order(self, needed: set[Node]) -> list[Node]:
        return [node for node in self.source.nodes if node in needed]

    def _copy(self, node: Node, fed: dict[Value, None]) -> None:
        if node.op.name == "placeholder":
            raise FeedError(
                f"placeholder {node.name!r} needs a value", location=node.location, expected=node.output.type,
                advice=f"pass it in feed_dict: {{{node.name}: ...}}",
            )  # fmt: skip
        if node.op.name == "variable_read":
            name = node.attributes["variable"]
            if name not in self.reads:
                self.reads[name] = self._input(name, node.output.type)
            self._map(node.output, self.reads[name], fed)
            return
        inputs = [self.mapping[value] for value in node.inputs]
        if node.op.name == "variable_assign":
            name = node.attributes["variable"]
            known = self.assigns.get(name)
            if known is not None and known[0] is not inputs[0]:
                raise GraphError(
                    f"variable {name!r} is assigned twice in one run", where=f"{known[1].name!r} and {node.name!r}",
                    location=node.location, advice="combine the two values and assign once",
                )  # fmt: skip
            self.assigns[name] = (inputs[0], node)
            self._map(node.output, inputs[0], fed)
            return
        fresh = self.target.add_node(
            node.op, inputs, node.attributes, [v.type for v in node.outputs],
            tuple(body.clone() for body in node.bodies), node.name, node.location,
        )  # fmt: skip
        for old, new in zip(node.outputs, fresh.outputs, strict=True):
            self._map(old, new, fed)

    def _map(self, old: Value, new: Value, fed: dict[Value, None]) -> None:
        if old not in fed:
            self.mapping[old] = new

    def _input(self, name: str, type_: TensorType) -> Value:
        op = operator_named("placeholder")
        node = self.target.add_node(op, (), {"type": type_}, infer(op, (), {"type": type_}), name=name)
        return self.target.add_input(node)
