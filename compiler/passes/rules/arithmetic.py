"""Rules of arithmetic."""

from __future__ import annotations

import math
from typing import Any

from pierian.compiler.graph.node import Node, Value
from pierian.compiler.passes.rules.matching import constant_value, keeps_shape, made_by
from pierian.compiler.rewrite.engine import Rule


def _constant_right(b: Any, node: Node) -> Value | None:
    x, y = node.inputs
    if constant_value(x) is not None and constant_value(y) is None:
        return b.apply(node.op, (y, x), dict(node.attributes))
    return None


def _identity(number: float, sign: float = 1.0) -> Any:
    """The left operand where the right one is `number` (with that sign, for zero)."""

    def apply(b: Any, node: Node) -> Value | None:
        x, y = node.inputs
        found = constant_value(y)
        if found is None or isinstance(found, bool) or found != number or not keeps_shape(node, x):
            return None
        if number == 0 and x.dtype.is_float and math.copysign(1.0, found) != sign:
            return None
        return x

    return apply


def _double(op: str) -> Any:
    """`op(op(x))` is x."""

    def apply(b: Any, node: Node) -> Value | None:
        inner = made_by(node.inputs[0], op)
        return inner.inputs[0] if inner is not None else None

    return apply


def _again(op: str) -> Any:
    """`op(op(x))` is `op(x)`."""

    def apply(b: Any, node: Node) -> Value | None:
        return node.inputs[0] if made_by(node.inputs[0], op) is not None else None

    return apply


def _add_negative(b: Any, node: Node) -> Value | None:
    """x + (-y) is x - y."""
    x, y = node.inputs
    inner = made_by(y, "negative")
    return b.subtract(x, inner.inputs[0]) if inner is not None else None


def _subtract_negative(b: Any, node: Node) -> Value | None:
    """x - (-y) is x + y."""
    x, y = node.inputs
    inner = made_by(y, "negative")
    return b.add(x, inner.inputs[0]) if inner is not None else None


def _power(b: Any, node: Node) -> Value | None:
    """Whole and half powers without a logarithm: 1, 2, -1. Each is correctly rounded, as the general power is not."""
    x, y = node.inputs
    exponent = constant_value(y)
    if exponent is None or not keeps_shape(node, x):
        return None
    if exponent == 1:
        return x
    if exponent == 2:
        return b.square(x)
    if exponent == -1 and x.dtype.is_float:
        return b.reciprocal(x)
    return None


def _divide_by_power_of_two(b: Any, node: Node) -> Value | None:
    """Division by a power of two is multiplication by its reciprocal, exactly."""
    x, y = node.inputs
    number = constant_value(y)
    if number is None or not x.dtype.is_float or number == 0 or math.isinf(number) or math.isnan(number):
        return None
    mantissa, exponent = math.frexp(abs(number))
    if mantissa != 0.5 or not -100 < exponent < 100:
        return None
    reciprocal = b.constant(1.0 / number, x.dtype)
    return b.multiply(x, b.broadcast_to(reciprocal, shape=y.shape) if y.shape else reciprocal)


def _same_cast(b: Any, node: Node) -> Value | None:
    return node.inputs[0] if node.inputs[0].dtype is node.output.dtype else None


def _cast_of_cast(b: Any, node: Node) -> Value | None:
    """A cast of a widening cast needs no stop in between."""
    inner = made_by(node.inputs[0], "cast")
    if inner is None:
        return None
    source, middle, target = inner.inputs[0].dtype, inner.output.dtype, node.output.dtype
    widening = source.kind == middle.kind and middle.bits >= source.bits
    if not widening and not source.is_bool:
        return None
    return b.cast(inner.inputs[0], dtype=target)


def _like_to_plain(name: str) -> Any:
    """`zeros_like(x)` needs the type of x, not its elements."""

    def apply(b: Any, node: Node) -> Value | None:
        type_ = node.output.type
        if name == "full":
            return b.full(shape=type_.shape, value=node.attributes["value"], dtype=type_.dtype)
        return getattr(b, name)(shape=type_.shape, dtype=type_.dtype)

    return apply


RULES = (
    *(Rule(op, "constant right", _constant_right) for op in ("add", "multiply", "minimum", "maximum", "equal")),
    Rule("multiply", "times one", _identity(1)),
    Rule("divide", "over one", _identity(1)),
    Rule("subtract", "minus zero", _identity(0)),
    Rule("add", "plus minus zero", _identity(0, -1.0)),
    Rule("add", "plus zero", _identity(0), exact=False),
    Rule("negative", "double negative", _double("negative")),
    Rule("logical_not", "double not", _double("logical_not")),
    *(Rule(op, f"{op} again", _again(op)) for op in ("abs", "floor", "ceil", "trunc", "round")),
    Rule("add", "add negative", _add_negative),
    Rule("subtract", "subtract negative", _subtract_negative),
    Rule("pow", "whole power", _power),
    Rule("divide", "divide by power of two", _divide_by_power_of_two),
    Rule("cast", "same cast", _same_cast),
    Rule("cast", "cast of cast", _cast_of_cast),
    *(Rule(f"{name}_like", f"plain {name}", _like_to_plain(name)) for name in ("zeros", "ones", "full")),
)
