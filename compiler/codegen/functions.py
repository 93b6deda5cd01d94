"""Elementary functions as functions of their own, for kernels with many of them and for arguments that are rare.

A kernel that calls one declares it; whoever puts a module together adds the definitions (`definitions`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

from pierian.compiler.codegen.scalars import emit_scalar, register_type, splat_constant
from pierian.compiler.codegen.writer import FunctionWriter, Value, lanes_of, vector
from pierian.compiler.dtype import DType, as_dtype
from pierian.compiler.elementary import expand, expansions
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.scalar import Scalar

_NAME = re.compile(r"@pierian_fn_(\w+?)_(float32|float64)_x(\d+)(?:_by(\d+))?\(")


def call_function(writer: FunctionWriter, node: Scalar, args: list[Value]) -> Value:
    """A call of the elementary function `node.op` on operands of any number of lanes."""
    return _call(writer, node.op, node.dtype, [args])[0]


def call_side_by_side(writer: FunctionWriter, node: Scalar, places: Sequence[list[Value]]) -> list[Value]:
    """The same on the operands of several places: one call, which computes them side by side."""
    return _call(writer, node.op, node.dtype, places)


def call_rarely(writer: FunctionWriter, node: Scalar, args: list[Value]) -> Value:
    """`rare` on operands of any number of lanes: a call that is gone past where no lane needs it."""
    condition, x, otherwise = args
    seldom, done = writer.label("rare"), writer.label("usual")
    lanes = lanes_of(condition.type)
    found = condition if lanes == 1 else writer.call(f"llvm.vector.reduce.or.v{lanes}i1", "i1", [condition])
    before = writer.block
    writer.line(f'br {found}, label %{seldom}, label %{done}, !prof !{{!"branch_weights", i32 1, i32 2000}}')
    writer.start(seldom)
    wanted = writer.select(condition, _call(writer, str(node.attribute), node.dtype, [[x]])[0], otherwise)
    writer.br(done)
    writer.start(done)
    return writer.phi(otherwise.type, [(otherwise, before), (wanted, seldom)])


def _call(writer: FunctionWriter, function: str, dtype: DType, places: Sequence[list[Value]]) -> list[Value]:
    type_, count = places[0][0].type, len(places)
    name, result = _name(function, dtype, lanes_of(type_), count), _result(type_, count)
    args = [arg for place in places for arg in place]
    writer.declarations.add(f"declare {result} @{name}({', '.join(arg.type for arg in args)})")
    found = writer.call(name, result, args)
    return [found] if count == 1 else [writer.emit(f"extractvalue {found}, {at}", type_) for at in range(count)]


def _name(function: str, dtype: DType, lanes: int, places: int) -> str:
    return f"pierian_fn_{function}_{dtype}_x{lanes}" + (f"_by{places}" if places > 1 else "")


def _result(type_: str, places: int) -> str:
    return type_ if places == 1 else f"[{places} x {type_}]"


def definitions(declarations: Iterable[str], isa: str) -> tuple[list[tuple[str, str]], set[str]]:
    """The elementary functions among `declare` lines, as (name, text), and the lines that are still needed."""
    found: dict[str, str] = {}
    remaining = set()
    waiting = sorted(declarations)
    while waiting:
        line = waiting.pop()
        match = _NAME.search(line)
        if match is None:
            remaining.add(line)
            continue
        name = match[0][1:-1]
        if name not in found:
            found[name], needed = _definition(match[1], as_dtype(match[2]), int(match[3]), int(match[4] or 1), isa)
            waiting += sorted(needed)
    return sorted(found.items()), remaining


@functools.lru_cache(maxsize=256)
def _definition(op: str, dtype: DType, lanes: int, places: int, isa: str) -> tuple[str, frozenset[str]]:
    count = 2 if op == "pow" else 1
    type_ = vector(register_type(dtype), lanes)
    names = [f"{name}{place or ''}" for place in range(places) for name in ("x", "y")[:count]]
    result = _result(type_, places)
    writer = FunctionWriter(_name(op, dtype, lanes, places), result, [(name, type_) for name in names], isa=isa)
    arguments = [ir.reduced(name, dtype) for name in names[:count]]
    (whole,) = expand([expansions(isa)[op](*arguments)], isa, inlined=1 << 30)
    values: list[dict[Scalar, Value]] = []
    for place in range(places):
        own = names[place * count : (place + 1) * count]
        values.append({leaf: writer.arg(name) for leaf, name in zip(arguments, own, strict=True)})
    for node in ir.postorder([whole]):
        if node not in values[0]:
            for known in values:
                known[node] = _compute(writer, node, [known[arg] for arg in node.args], lanes)
    found = values[0][whole]
    if places > 1:
        found = Value("poison", result)
        for at, known in enumerate(values):
            found = writer.emit(f"insertvalue {found}, {known[whole]}, {at}", result)
    writer.ret(found)
    return writer.finish(), frozenset(writer.declarations)


def _compute(writer: FunctionWriter, node: Scalar, args: list[Value], lanes: int) -> Value:
    if node.op == "const":
        return splat_constant(node, lanes)
    if node.op == "rare":
        return call_rarely(writer, node, args)
    return emit_scalar(writer, node, args)
