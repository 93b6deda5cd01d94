"""Declaring operators, and the registry of all of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from pierian.compiler.errors import GraphError
from pierian.compiler.graph.node import Value
from pierian.compiler.graph.operator import Operator

# How a schema says that a parameter is a tensor. Users may pass a tensor, an array or nested lists of numbers.
Tensor = Value

# The families; importing one registers its operators.
FAMILIES = (
    "state", "creation", "arithmetic", "rounding", "elementary", "comparison", "logical", "cast", "reduction", "contraction",
    "movement", "slicing", "joining", "windows", "pooling", "convolution", "cumulative", "indexing", "random", "activation",
    "losses", "control",
)  # fmt: skip

_REGISTRY: dict[str, Operator] = {}


def operator(**facts: Any) -> Callable[[Callable[..., Any]], Operator]:
    """Decorator: an operator whose schema is the function's signature and whose reference page is its docstring.

    Parameters annotated `Tensor`, `Tensor | None` or `Sequence[Tensor]` are inputs, the others attributes. Keyword
    arguments are facts and rules (see `Operator`).
    """

    def declare(function: Callable[..., Any]) -> Operator:
        return register(Operator(function, **facts))

    return declare


def register(op: Operator) -> Operator:
    """Add an operator to the registry.

    Raises:
        GraphError: the name is taken.
    """
    if op.name in _REGISTRY:
        raise GraphError(f"operator {op.name!r} is defined twice")
    _REGISTRY[op.name] = op
    return op


def unregister(op: Operator) -> None:
    """Take an operator out again."""
    _REGISTRY.pop(op.name, None)


_LOADED = False


def load_families() -> None:
    """Import every family once."""
    global _LOADED
    if not _LOADED:
        _LOADED = True
        for family in FAMILIES:
            importlib.import_module(f"pierian.compiler.ops.{family}")


def operator_named(name: str) -> Operator:
    """The operator of that name.

    Raises:
        GraphError: there is none.
    """
    found = _REGISTRY.get(name)
    if found is None:
        load_families()
        found = _REGISTRY.get(name)
    if found is None:
        raise GraphError(f"there is no operator named {name!r}")
    return found


def all_operators() -> Iterator[Operator]:
    """Every operator, in order of definition."""
    load_families()
    yield from list(_REGISTRY.values())
