"""Elementary functions as functions of their own, for kernels with many of them.

A kernel that calls one declares it; whoever puts a module together adds the definitions (`definitions`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from pierian.compiler.codegen.scalars import emit_scalar, register_type, splat_constant
from pierian.compiler.codegen.writer import FunctionWriter, Value, lanes_of, vector
from pierian.compiler.dtype import DType, as_dtype
from pierian.compiler.elementary import EXPANSIONS, expand
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

_NAME = re.compile(r"@pierian_fn_(\w+?)_(float32|float64)_x(\d+)\(")


def call_function(writer: FunctionWriter, node: Scalar, args: list[Value]) -> Value:
    """A call of the elementary function `node.op` on operands of any number of lanes."""
    lanes = lanes_of(args[0].type)
    type_ = args[0].type
    name = f"pierian_fn_{node.op}_{node.dtype}_x{lanes}"
    writer.declarations.add(f"declare {type_} @{name}({', '.join(arg.type for arg in args)})")
    return writer.call(name, type_, args)


def definitions(declarations: Iterable[str], isa: str) -> tuple[list[tuple[str, str]], set[str]]:
    """The elementary functions among `declare` lines, as (name, text), and the lines that are still needed."""
    found, remaining = [], set()
    for line in sorted(declarations):
        match = _NAME.search(line)
        if match is None:
            remaining.add(line)
            continue
        text, needed = _definition(match[1], as_dtype(match[2]), int(match[3]), isa)
        found.append((match[0][1:-1], text))
        remaining |= needed
    return found, remaining


@functools.lru_cache(maxsize=256)
def _definition(op: str, dtype: DType, lanes: int, isa: str) -> tuple[str, frozenset[str]]:
    count = 2 if op == "pow" else 1
    type_ = vector(register_type(dtype), lanes)
    names = ["x", "y"][:count]
    writer = FunctionWriter(f"pierian_fn_{op}_{dtype}_x{lanes}", type_, [(name, type_) for name in names], isa=isa)
    arguments = [ir.reduced(name, dtype) for name in names]
    (whole,) = expand([EXPANSIONS[op](*arguments)], inlined=1 << 30)
    values: dict[Scalar, Value] = {leaf: writer.arg(name) for leaf, name in zip(arguments, names, strict=True)}
    for node in ir.postorder([whole]):
        if node in values:
            continue
        if node.op == "const":
            values[node] = splat_constant(node, lanes)
        else:
            values[node] = emit_scalar(writer, node, [values[arg] for arg in node.args])
    writer.ret(values[whole])
    return writer.finish(), frozenset(writer.declarations)
