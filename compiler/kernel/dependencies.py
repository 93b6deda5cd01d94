"""What the scalar expressions of a kernel depend on."""

from __future__ import annotations

from pierian.compiler.dim import Symbolic, symbols
from pierian.compiler.kernel.scalar import Scalar, children, load_parts


class Dependencies:
    """Which axes each expression of a kernel depends on; computed once and kept."""

    def __init__(self) -> None:
        self._known: dict[Scalar, frozenset[str]] = {}

    def of(self, root: Scalar) -> frozenset[str]:
        """Names of all axes and sizes, and `=name` for reduction results."""
        found = self._known.get(root)
        if found is not None:
            return found
        stack = [root]
        while stack:
            node = stack[-1]
            below = children(node)
            missing = [child for child in below if child not in self._known]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            self._known[node] = frozenset().union(_own(node), *(self._known[child] for child in below))
        return self._known[root]


def _own(node: Scalar) -> frozenset[str]:
    if node.op == "dim":
        assert isinstance(node.attribute, Symbolic)
        return symbols(node.attribute)
    if node.op == "load":
        return frozenset().union(*(symbols(i) for i in load_parts(node)[1] if not isinstance(i, Scalar)))
    if node.op == "reduced":
        return frozenset((f"={node.attribute}",))
    return frozenset()
