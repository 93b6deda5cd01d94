"""Exponentials of what cannot be positive become decays, which take fewer operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pierian.compiler.dim import symbol
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Reduce, Statement
from pierian.compiler.kernel.scalar import Scalar

# What is at least 0, or NaN, whatever its argument; and what is where both arguments are.
_NEVER_NEGATIVE = ("abs", "sqrt", "exp", "decay", "exp2", "sigmoid", "softplus")
_MONOTONE = ("add", "min", "max")


def find_decays(body: Sequence[Statement]) -> list[Scalar]:
    """The values of statements, with `decay` for `exp` where the argument is at most 0 or NaN by its form.

    before:  m = max over %k of x[%i, %k]                     after:  m = max over %k of x[%i, %k]
             s = sum over %k of exp(x[%i, %k] - m)                    s = sum over %k of decay(x[%i, %k] - m)
             y[%i] = exp(-(a[%i] * a[%i]))                            y[%i] = decay(-(a[%i] * a[%i]))
    """
    values = [statement.value for statement in body]
    if not any(node.op == "exp" for node in ir.postorder(values)):
        return values
    peaks = {s.name: s for s in body if isinstance(s, Reduce) and s.combiner == "max"}
    return [_rewritten(statement, peaks) for statement in body]


def _rewritten(statement: Statement, peaks: Mapping[str, Reduce]) -> Scalar:
    done: dict[Scalar, Scalar] = {}
    signs: dict[Scalar, int] = {}
    for node in ir.postorder([statement.value]):
        signs[node] = (
            -1 if _is_below_peak(node, statement.axes, peaks) else _sign(node, [signs.get(a, 0) for a in node.args])
        )
        args = tuple(done[arg] for arg in node.args)
        if node.op == "exp" and signs[node.args[0]] < 0:
            done[node] = ir.scalar("decay", node.dtype, args)
        else:
            done[node] = node if args == node.args else ir.scalar(node.op, node.dtype, args, node.attribute)
    return done[statement.value]


def _sign(node: Scalar, args: Sequence[int]) -> int:
    """1 for what is at least 0 or NaN, -1 for what is at most 0 or NaN, 0 for what may be either."""
    op = node.op
    if not node.dtype.is_float:
        return 0
    if op == "const":
        return 1 if node.attribute >= 0 else -1  # type: ignore[operator]
    if op in _NEVER_NEGATIVE:
        return 1
    if op == "neg":
        return -args[0]
    if op in ("mul", "div"):
        return 1 if op == "mul" and node.args[0] is node.args[1] else args[0] * args[1]
    if op in _MONOTONE and args[0] == args[1]:
        return args[0]
    if op == "min" and -1 in args:
        return -1
    if op == "max" and 1 in args:
        return 1
    return args[1] if op == "select" and args[1] == args[2] else 0


def _is_below_peak(node: Scalar, axes: Sequence[Axis], peaks: Mapping[str, Reduce]) -> bool:
    """Whether a node is x - max(x, ...), the maximum of two or of a row."""
    if node.op != "sub" or not node.dtype.is_float:
        return False
    x, top = node.args
    if top.op == "max":
        return x in top.args
    peak = peaks.get(str(top.attribute)) if top.op == "reduced" else None
    if peak is None or [axis.extent for axis in peak.axes] != [axis.extent for axis in axes]:
        return False
    names = {axis.name: symbol(other.name) for axis, other in zip(axes, peak.axes, strict=True)}
    return ir.rename_axes(x, names) is peak.value
