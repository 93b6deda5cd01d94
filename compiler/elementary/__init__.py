"""Elementary functions as expansions into primitive scalar expressions: one source for every target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pierian.compiler.elementary.decays import find_decays
from pierian.compiler.elementary.erf import erf
from pierian.compiler.elementary.exp import decay, exp, exp2, expm1
from pierian.compiler.elementary.hyperbolic import sigmoid, tanh, tanh_by_powers
from pierian.compiler.elementary.log import log, log1p, log2
from pierian.compiler.elementary.pow import power
from pierian.compiler.elementary.softplus import softplus
from pierian.compiler.elementary.trig import cos, cos_huge, sin, sin_huge
from pierian.compiler.frozen import replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.scalar import Index, Scalar


def _rsqrt(x: Scalar) -> Scalar:
    return ir.binary("div", ir.const(1.0, x.dtype), ir.unary("sqrt", x))


Rules = dict[str, Callable[..., Scalar]]

EXPANSIONS: Rules = {
    "exp": exp, "decay": decay, "exp2": exp2, "expm1": expm1, "log": log, "log1p": log1p, "log2": log2, "sin": sin, "cos": cos,
    "sin_huge": sin_huge, "cos_huge": cos_huge,
    "tanh": tanh, "sigmoid": sigmoid, "erf": erf, "softplus": softplus, "pow": power, "rsqrt": _rsqrt,
}  # fmt: skip

# Where a table of sixteen elements is no operand of an instruction or two, picking from it takes longer than computing.
_WITHOUT_TABLES = EXPANSIONS | {"tanh": tanh_by_powers}
_WITH_TABLES = ("avx512", "neon")


def expansions(isa: str) -> Rules:
    """The expansion of each elementary function for an instruction set."""
    return EXPANSIONS if isa in _WITH_TABLES else _WITHOUT_TABLES


# Elementary functions that a kernel may have and still get them all in place. Where there are more, they are functions of their own
# that it calls: code that is written and compiled once, at the price of a call for each vector.
INLINED = 6


def expand(roots: Sequence[Scalar], isa: str, inlined: int = INLINED) -> list[Scalar]:
    """The expressions with elementary functions replaced by primitive operations, as suits an instruction set; with more than
    `inlined` of them they stay, and code generation calls them."""
    found = sum(node.op in EXPANSIONS and node.op != "rsqrt" for node in ir.postorder(roots))
    kept = frozenset(EXPANSIONS) - {"rsqrt"} if found > inlined else frozenset()
    rules = {name: rule for name, rule in expansions(isa).items() if name not in kept}
    done: dict[Scalar, Scalar] = {}
    for root in roots:
        _expand(root, rules, done)
    return [done[root] for root in roots]


def expand_kernel(kernel: Kernel, isa: str) -> Kernel:
    """The kernel with the values of its statements expanded."""
    values = expand(find_decays(kernel.body), isa)
    body = tuple(replace(s, value=value) for s, value in zip(kernel.body, values, strict=True))
    return replace(kernel, body=body)


def _expand(root: Scalar, rules: Rules, done: dict[Scalar, Scalar]) -> None:
    """Put the expansion of `root` and all below it into `done`, which knows what has been expanded before."""
    stack = [root]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        missing = [child for child in ir.children(node) if child not in done]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        done[node] = _expand_one(node, rules, done)


def _expand_one(node: Scalar, rules: Rules, done: dict[Scalar, Scalar]) -> Scalar:
    if node.op == "load":
        buffer, indices = ir.load_parts(node)
        mapped: list[Index] = [done[index] if isinstance(index, Scalar) else index for index in indices]
        return ir.load(buffer, tuple(mapped), node.dtype)
    args = tuple(done[arg] for arg in node.args)
    rule = rules.get(node.op)
    if rule is None:
        return node if args == node.args else ir.scalar(node.op, node.dtype, args, node.attribute)
    for arg in args:
        done.setdefault(arg, arg)  # what the rule is given has been expanded
    whole = rule(*args)
    _expand(whole, rules, done)
    return done[whole]


__all__ = ["EXPANSIONS", "INLINED", "expand", "expand_kernel", "expansions"]
