"""Elementary functions as expansions into primitive scalar expressions: one source for every target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.elementary.erf import erf
from pierian.compiler.elementary.exp import exp, exp2, expm1
from pierian.compiler.elementary.hyperbolic import sigmoid, tanh
from pierian.compiler.elementary.log import log, log1p, log2
from pierian.compiler.elementary.pow import power
from pierian.compiler.elementary.trig import cos, sin
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Index, Scalar


def _rsqrt(x: Scalar) -> Scalar:
    return ir.binary("div", ir.const(1.0, x.dtype), ir.unary("sqrt", x))


EXPANSIONS: dict[str, Callable[..., Scalar]] = {
    "exp": exp, "exp2": exp2, "expm1": expm1, "log": log, "log1p": log1p, "log2": log2, "sin": sin, "cos": cos,
    "tanh": tanh, "sigmoid": sigmoid, "erf": erf, "pow": power, "rsqrt": _rsqrt,
}  # fmt: skip


def expand(roots: Sequence[Scalar]) -> list[Scalar]:
    """The expressions with every elementary function replaced by primitive operations."""
    done: dict[Scalar, Scalar] = {}
    for node in ir.postorder(roots):
        if node.op == "load":
            buffer, indices = ir.load_parts(node)
            mapped: list[Index] = [done[index] if isinstance(index, Scalar) else index for index in indices]
            done[node] = ir.load(buffer, tuple(mapped), node.dtype)
            continue
        args = tuple(done[arg] for arg in node.args)
        rule = EXPANSIONS.get(node.op)
        if rule is None:
            done[node] = node if args == node.args else ir.scalar(node.op, node.dtype, args, node.attribute)
        else:
            (done[node],) = expand([rule(*args)])
    return [done[root] for root in roots]


__all__ = ["EXPANSIONS", "expand"]
