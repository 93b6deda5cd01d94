"""Driving rewrite rules over a graph with a worklist until none applies.

A rule is a `Rule`: the operator it looks at, a function `(b, node) -> value(s) or None`, and the class of its float safety. The
engine keeps uses, gives new nodes the locations of what they replace and the name of the replaced node, and looks again at
whoever reads a replaced value. What was replaced is taken out with all that only it needed, so that rules for values with a single
reader see who is left; those are looked at again too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from pierian.compiler.errors import GraphError
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node, Value

Replacement = Value | Sequence[Value] | None


@frozen
class Rule:
    """A declared rewrite.

    Attributes:
        op: name of the operator at the root of the pattern.
        name: what the journal calls it.
        apply: the replacement of the node's outputs, or None where the pattern does not match.
        exact: True where results keep every bit (for all inputs, NaN and signed zeros included).
    """

    op: str
    name: str
    apply: Callable[[Any, Node], Replacement]
    exact: bool = True


class Rewriter:
    """Applies rules to one graph; bodies are graphs of their own.

    Attributes:
        journal: which rule replaced which node, in order.
    """

    def __init__(self, rules: Iterable[Rule], fuel: int = 20) -> None:
        self.rules: dict[str, list[Rule]] = {}
        for rule in rules:
            self.rules.setdefault(rule.op, []).append(rule)
        self.fuel = fuel
        self.journal: list[tuple[str, str]] = []

    def run(self, graph: Graph) -> bool:
        """Rewrite until nothing matches; True where anything changed.

        Raises:
            GraphError: rules go on replacing each other's results.
        """
        builder = GraphBuilder(graph)
        work = list(graph.nodes)
        queued = set(work)
        left = self.fuel * (len(work) + 10)
        changed = False
        position = 0
        while position < len(work):
            node = work[position]
            position += 1
            queued.discard(node)
            if node.graph is not graph or node.op.name not in self.rules:
                continue
            before = len(graph.nodes)
            touched = self._apply(builder, node)
            if touched is None:
                continue
            changed = True
            left -= 1
            if left < 0:
                raise GraphError("rewrite rules do not come to an end", where=node.describe())
            fresh = list(islice(reversed(graph.nodes), len(graph.nodes) - before))  # those added stand last
            fresh.reverse()
            for one in (*fresh, *touched, *_take_out(graph, node)):
                if one not in queued and one.graph is graph:
                    queued.add(one)
                    work.append(one)
        if changed:
            graph.sort()
        return changed

    def _apply(self, builder: GraphBuilder, node: Node) -> list[Node] | None:
        """Apply the first rule that matches; the readers of the replaced values."""
        for rule in self.rules[node.op.name]:
            builder.location = node.location
            replacement = rule.apply(builder, node)
            if replacement is None:
                continue
            values = [replacement] if isinstance(replacement, Value) else list(replacement)
            readers = [reader for value in node.outputs for reader in value.uses]
            for old, new in zip(node.outputs, values, strict=True):
                builder.graph.replace_uses(old, new)
            self.journal.append((rule.name, node.name))
            return readers
        return None


def _take_out(graph: Graph, replaced: Node) -> list[Node]:
    """Remove a node that nobody reads and what only it needed; who alone is left to read what they read."""
    left: list[Node] = []
    stack = [replaced]
    while stack:
        node = stack.pop()
        is_kept = node.op.stateful or any(value.uses for value in node.outputs)
        if node.graph is not graph or is_kept:
            continue
        inputs = node.inputs
        graph.remove(node)
        stack += [value.node for value in inputs]
        left += [reader for value in inputs if len(value.uses) == 1 for reader in value.uses]
    return left
