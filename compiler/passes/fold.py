"""Constant folding: what depends on constants alone is computed once, by the operators' NumPy references."""

from __future__ import annotations

import numpy as np

from pierian.compiler.dim import Symbolic
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.builder import GraphBuilder
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.node import Node
from pierian.compiler.passes.base import bodies

# Operators whose reference gives the very bits that native code gives; others (exp, sums) are left to native code so that
# results do not depend on whether an input happened to be a constant.
_EXACT_ULP = 0.0


@frozen
class Fold:
    """Given: any graph. Result: no exact operator has only constant inputs, unless its result is larger than `limit`.

    before:  %a = constant 2.0;  %b = constant 3.0;  %c = multiply(%a, %b)
    after:   %c = constant 6.0
    """

    limit: int = 4096
    name: str = "fold"

    def run(self, graph: Graph) -> bool:
        changed = False
        builder = GraphBuilder(graph)
        for node in list(graph.nodes):
            if self._is_foldable(node):
                builder.location = node.location
                self._replace(graph, builder, node)
                changed = True
        if changed:
            graph.sort()
        return any([changed, *(self.run(body) for body in bodies(graph))])

    def _is_foldable(self, node: Node) -> bool:
        op = node.op
        if op.name == "constant" or op.reference_rule is None or op.stateful or op.random or op.ulp != _EXACT_ULP:
            return False
        if not node.inputs or not all(value.node.op.name == "constant" for value in node.inputs):
            return False
        given = [one for value in node.attributes.values() for one in (value if isinstance(value, tuple) else (value,))]
        if any(isinstance(one, Symbolic) for one in given):
            return False  # a run says what is wanted of the constants
        size = node.output.type.size
        return isinstance(size, int) and size <= self.limit

    def _replace(self, graph: Graph, builder: GraphBuilder, node: Node) -> None:
        arrays = [value.node.attributes["value"].array for value in node.inputs]
        rule = node.op.reference_rule
        assert rule is not None
        result = rule(*arrays, **node.attributes)
        results = result if isinstance(result, tuple) else (result,)
        for old, array in zip(node.outputs, results, strict=True):
            shaped = np.asarray(array, dtype=old.dtype.numpy)
            graph.replace_uses(old, builder.constant(Constant(shaped)))
