"""One expression at several places at a time, operation by operation.

While the result of one operation is awaited a processor goes on with others, as far as it looks ahead: on Zen 3 some 60 of them.
Exponentials are chains of a dozen: four of them side by side take 0.8 of the time of four that follow one another there.
Functions that are called get all their places at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen.evaluate import Scope
from pierian.compiler.codegen.functions import call_side_by_side
from pierian.compiler.elementary import EXPANSIONS
from pierian.compiler.kernel.scalar import Scalar, children

# Places at a time: so many dependent operations hide each other's latency, in the registers there are.
SIDE_BY_SIDE = 4


def evaluate_together(scopes: Sequence[Scope], root: Scalar) -> None:
    """Compute an expression in scopes that stand at the same place of the loops."""
    for at in range(0, len(scopes), SIDE_BY_SIDE):
        some = scopes[at : at + SIDE_BY_SIDE]
        for node in _missing(some[0], root):
            if node.op in EXPANSIONS and some[0].varies(node):
                values = call_side_by_side(some[0].writer, node, [scope.operands(node) for scope in some])
                for scope, value in zip(some, values, strict=True):
                    scope.define(node, value)
                continue
            for scope in some:
                scope.get(node)
    for scope in scopes:
        scope.vector(root)


def _missing(scope: Scope, root: Scalar) -> list[Scalar]:
    """What has to be computed for an expression, arguments before users."""
    order: list[Scalar] = []
    seen: set[Scalar] = set()
    stack = [(root, False)]
    while stack:
        node, is_next = stack.pop()
        if is_next:
            order.append(node)
        elif node not in seen and not scope.knows(node):
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(children(node)))
    return order
