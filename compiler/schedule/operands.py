"""Right operands of contractions that are laid out for the target once: constants when a program is compiled, what a loop does not
change before the loop.

The kernel goes on meaning the same: its load of `w[k, n]` becomes a load of `p[n / nr, k, n mod nr]`, where `p` holds the panels
that the contraction engine would else pack in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pierian.compiler.codegen.access import address, step, without
from pierian.compiler.dim import Dim, substitute, symbol
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Store
from pierian.compiler.kernel.program import Branch, Copy, Launch, Loop, Program, ProgramBuffer, Step, buffers_of
from pierian.compiler.lowering.memory import plan_memory
from pierian.compiler.schedule.collapse import collapse
from pierian.compiler.schedule.contraction import Roles, choose_tiling, classify, packed_indices
from pierian.compiler.target.features import Target

Array = np.ndarray[Any, Any]


def lay_out_operands(program: Program, target: Target, reuse_memory: bool = True) -> None:
    """Pack, in place, what contractions of a program read more often than it changes; the memory plan is made anew."""
    pack_constants(program, target)
    if any(isinstance(one, (Branch, Loop)) for one in program.steps):
        pack_invariants(program, target)
        plan_memory(program, reuse_memory)


def pack_constants(program: Program, target: Target) -> None:
    """Replace, in place, every constant that a contraction reads as its right operand by packed panels."""
    packed: dict[tuple[Any, ...], str] = {}
    for launch in _launches(program.steps):
        if launch.kernel.kind == "contraction":
            _pack(program, launch, target, packed)
    _drop_unused(program)


def pack_invariants(program: Program, target: Target) -> None:
    """Pack in front of a loop, in place, what contractions inside read as their right operand and no turn changes."""
    program.steps = _with_packing(program, program.steps, target)


def _with_packing(program: Program, steps: Sequence[Step], target: Target) -> list[Step]:
    found: list[Step] = []
    for one in steps:
        if isinstance(one, Branch):
            one.then = _with_packing(program, one.then, target)
            one.otherwise = _with_packing(program, one.otherwise, target)
        elif isinstance(one, Loop):
            one.header = _with_packing(program, one.header, target)
            one.steps = _with_packing(program, one.steps, target)
            found += _pack_before(program, one, target)
        found.append(one)
    return found


def _pack_before(program: Program, loop: Loop, target: Target) -> list[Step]:
    changed = {_base(program, name) for name in _written([*loop.header, *loop.steps])}
    packing: dict[tuple[Any, ...], tuple[str, Launch]] = {}
    for launch in _launches([*loop.header, *loop.steps]):
        if launch.kernel.kind != "contraction":
            continue
        kernel = collapse(launch.kernel)
        roles = classify(kernel)
        if roles.m.extent == 1 or roles.rhs.op != "load" or roles.packed or roles.rhs_batch or roles.segments:
            continue
        name, indices = ir.load_parts(roles.rhs)
        position = next(i for i, buffer in enumerate(kernel.buffers) if buffer.name == name)
        source, buffer = launch.buffers[position], kernel.buffers[position]
        nr = choose_tiling(roles, target).nr
        n, k = roles.n.extent, roles.k.extent
        if _base(program, source) in changed or program.buffers[source].start != 0 or _loads(kernel, name) != 1:
            continue
        if not isinstance(n, int) or n % nr or n == 0 or not isinstance(k, int) or buffer.dtype is not roles.rhs.dtype:
            continue
        if address(buffer, indices).computed or not all(isinstance(dim, int) for dim in buffer.shape):
            continue
        key = (source, indices, buffer.shape, nr)
        if key not in packing:
            packing[key] = _packing(program, launch, buffer, indices, roles, nr, source)
        panels = Buffer(name, buffer.dtype, (n // nr, k, nr))
        launch.kernel = _reading(kernel, roles, panels)
        launch.buffers = tuple(packing[key][0] if i == position else b for i, b in enumerate(launch.buffers))
    return [launch for _, launch in packing.values()]


def _packing(
    program: Program, launch: Launch, buffer: Buffer, indices: Sequence[ir.Index], roles: Roles, nr: int, source: str
) -> tuple[str, Launch]:
    """A new temporary for the panels, and the launch that fills it."""
    n, k = roles.n.extent, roles.k.extent
    assert isinstance(n, int) and isinstance(k, int)
    name = f"panels{sum(one.startswith('panels') for one in program.buffers)}"
    shape = (n // nr, k, nr)
    program.buffers[name] = ProgramBuffer(name, "temporary", buffer.dtype, shape)
    axes = (Axis("%p", n // nr), Axis("%k", k), Axis("%c", nr))
    place = {roles.n.name: symbol("%p") * nr + symbol("%c"), roles.k.name: symbol("%k")}
    read = tuple(substitute(index, place) for index in indices if not isinstance(index, ir.Scalar))
    load = ir.load("b0", read, buffer.dtype)
    store = Store("b1", (symbol("%p"), symbol("%k"), symbol("%c")), load)
    given = Buffer("b0", buffer.dtype, buffer.shape)
    kernel = Kernel("loop", (given, Buffer("b1", buffer.dtype, shape)), (), axes, (store,))
    return name, Launch(kernel, (source, name), (), "packing", launch.location)


def _written(steps: Sequence[Step]) -> set[str]:
    """The buffers that steps store to."""
    found: set[str] = set()
    for launch in _launches(steps):
        outputs = launch.kernel.outputs
        found.update(
            name for name, one in zip(launch.buffers, launch.kernel.buffers, strict=True) if one.name in outputs
        )
    return found | _copied(steps)


def _copied(steps: Sequence[Step]) -> set[str]:
    found: set[str] = set()
    for one in steps:
        if isinstance(one, Copy):
            found.add(one.target)
        elif isinstance(one, Branch):
            found |= _copied([*one.then, *one.otherwise])
        elif isinstance(one, Loop):
            found |= _copied([*one.header, *one.steps])
    return found


def _base(program: Program, name: str) -> str:
    while program.buffers[name].kind == "alias":
        name = program.buffers[name].base
    return name


def _launches(steps: Sequence[Step]) -> list[Launch]:
    found: list[Launch] = []
    for one in steps:
        if isinstance(one, Launch):
            found.append(one)
        elif isinstance(one, Branch):
            found += _launches(one.then) + _launches(one.otherwise)
        elif isinstance(one, Loop):
            found += _launches(one.header) + _launches(one.steps)
    return found


def _pack(program: Program, launch: Launch, target: Target, packed: dict[tuple[Any, ...], str]) -> None:
    kernel = collapse(launch.kernel)
    roles = classify(kernel)
    if roles.m.extent == 1 or roles.n.extent == 1 or roles.rhs.op != "load":
        return
    name, indices = ir.load_parts(roles.rhs)
    position = next(i for i, buffer in enumerate(kernel.buffers) if buffer.name == name)
    data = _data(program, launch.buffers[position])
    buffer = kernel.buffers[position]
    if data is None or buffer.dtype is not roles.rhs.dtype or _loads(kernel, name) != 1:
        return
    nr = choose_tiling(roles, target).nr
    where = address(buffer, indices)
    order = [*roles.rhs_batch, *roles.segments, roles.k, roles.n]
    offsets = None if where.computed else _offsets(where.known, order)
    if offsets is None:
        return
    panels = _panels(data.reshape(-1)[offsets], roles, nr)
    key = (launch.buffers[position], where.known, tuple(order), nr)
    if key not in packed:
        packed[key] = _add_constant(program, f"{launch.buffers[position]}_panels{len(packed)}", buffer, panels)
    fresh = Buffer(name, buffer.dtype, panels.shape)
    kernel = _reading(kernel, roles, fresh)
    # In panels all reduced axes follow each other, so that more of them may be one.
    kernel = collapse(kernel)
    launch.kernel = _reading(kernel, classify(kernel), fresh)
    launch.buffers = tuple(packed[key] if i == position else one for i, one in enumerate(launch.buffers))


def _reading(kernel: Kernel, roles: Roles, panels: Buffer) -> Kernel:
    """The kernel with its right operand read from panels."""
    columns = panels.shape[-1]
    assert isinstance(columns, int)
    load = ir.load(panels.name, packed_indices(roles, columns), panels.dtype)
    reduce = replace(roles.reduce, value=ir.scalar("mul", roles.reduce.value.dtype, (roles.lhs, load)))
    return replace(
        kernel,
        buffers=tuple(panels if one.name == panels.name else one for one in kernel.buffers),
        body=tuple(reduce if statement is roles.reduce else statement for statement in kernel.body),
    )


def _data(program: Program, name: str) -> Array | None:
    buffer = program.buffers[name]
    while buffer.kind == "alias" and buffer.start == 0:
        buffer = program.buffers[buffer.base]
    return np.ascontiguousarray(buffer.data) if buffer.kind == "constant" else None


def _loads(kernel: Kernel, name: str) -> int:
    nodes = ir.postorder([statement.value for statement in kernel.body])
    return sum(node.op == "load" and ir.load_parts(node)[0] == name for node in nodes)


def _offsets(known: Dim, axes: Sequence[Axis]) -> Array | None:
    """Element numbers over all points of the axes; None where sizes or steps are not known."""
    base = without(known, [axis.name for axis in axes])
    if not isinstance(base, int):
        return None
    total: Array = np.asarray(base)
    for axis in axes:
        distance = step(known, axis.name)
        if not isinstance(distance, int) or not isinstance(axis.extent, int):
            return None
        total = total[..., None] + distance * np.arange(axis.extent)
    return total


def _panels(values: Array, roles: Roles, nr: int) -> Array:
    """[batch..., segments..., k, n] as [batch..., n / nr, segments * k, n mod nr], filled up with zeros."""
    lead = len(roles.rhs_batch)
    flat = values.reshape(*values.shape[:lead], int(np.prod(values.shape[lead:-1])), values.shape[-1])
    missing = -flat.shape[-1] % nr
    wide = np.pad(flat, [(0, 0)] * (flat.ndim - 1) + [(0, missing)])
    cut = wide.reshape(*wide.shape[:-1], wide.shape[-1] // nr, nr)
    return np.ascontiguousarray(np.moveaxis(cut, -2, lead))


def _add_constant(program: Program, name: str, like: Buffer, data: Array) -> str:
    shape = tuple(int(size) for size in data.shape)
    program.buffers[name] = ProgramBuffer(name, "constant", like.dtype, shape, len(program.constants), data=data)
    program.constants.append(name)
    return name


def _drop_unused(program: Program) -> None:
    """Constants that no step reads any more need no place in the program's data."""
    used = buffers_of(program.steps)
    for name in list(used):
        while program.buffers[name].kind == "alias":
            name = program.buffers[name].base
            used.add(name)
    unused = [name for name in program.constants if name not in used]
    for name in unused:
        program.constants.remove(name)
    for position, name in enumerate(program.constants):
        program.buffers[name].position = position
    for name in unused:
        del program.buffers[name]
    for name, buffer in list(program.buffers.items()):
        if buffer.kind == "alias" and buffer.base not in program.buffers:
            del program.buffers[name]
