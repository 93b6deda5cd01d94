"""Right operands of contractions that are laid out for the target once: constants when a program is compiled, what a loop does not
change before the loop.

The kernel goes on meaning the same: its load of `w[k, n]` becomes a load of `p[n / nr, k, n mod nr]`, where `p` holds the panels
that the contraction engine would else pack in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, substitute, symbol
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step, without
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Store
from pierian.compiler.kernel.program import (
    Branch,
    Launch,
    Loop,
    Program,
    ProgramBuffer,
    Step,
    launches,
    walk,
    written,
)
from pierian.compiler.lowering.bands import cut_into_bands
from pierian.compiler.lowering.buffers import drop_unused
from pierian.compiler.lowering.memory import plan_memory
from pierian.compiler.options import CompileOptions
from pierian.compiler.schedule.collapse import collapse
from pierian.compiler.schedule.contraction import choose_tiling
from pierian.compiler.schedule.few_rows import choose_few_rows
from pierian.compiler.schedule.lanewise import choose_lanewise
from pierian.compiler.schedule.roles import Roles, classify, packed_indices
from pierian.compiler.schedule.streams import Stream
from pierian.compiler.schedule.winograd import Winograd, filters_in_panels, find_winograd, transformed_filters
from pierian.compiler.shape import Shape
from pierian.compiler.target.features import Target

Array = np.ndarray[Any, Any]


def lay_out_operands(program: Program, target: Target, options: CompileOptions | None = None) -> None:
    """Cut loops into bands, and pack, in place, what contractions of a program read more often than it changes; the memory plan is
    made anew."""
    structured = any(isinstance(one, (Branch, Loop)) for one in program.steps)
    if structured:
        cut_into_bands(program, target)
    pack_constants(program, target)
    if structured:
        pack_invariants(program, target)
        plan_memory(program, options)


def pack_constants(program: Program, target: Target) -> None:
    """Replace, in place, every constant that a contraction reads as its right operand by packed panels."""
    packed: dict[tuple[Any, ...], str] = {}
    for launch in launches(program.steps):
        if all(program.buffers[program.base(name)].kind != "constant" for name in launch.buffers):
            continue
        winograd = find_winograd(launch.kernel, target)
        if winograd is not None and winograd.pays:
            _transform_constant(program, launch, winograd, packed)
            continue
        operand = _right_operand(launch, target)
        if operand is not None:
            _pack_constant(program, launch, operand, packed)
    drop_unused(program)


def pack_invariants(program: Program, target: Target) -> None:
    """Pack in front of a loop, in place, what contractions inside read as their right operand and no turn changes."""
    program.steps = _with_packing(program, program.steps, target)


@frozen
class _Operand:
    """A right operand that is one plain load: its contraction, which buffer and parameter it reads and where, and panel columns."""

    kernel: Kernel
    roles: Roles
    position: int
    buffer: Buffer
    source: str
    indices: tuple[Dim, ...]
    columns: int


def _right_operand(launch: Launch, target: Target) -> _Operand | None:
    """What a launch could read from panels; None where it is no such contraction or does already."""
    if launch.kernel.kind != "contraction":
        return None
    kernel = collapse(launch.kernel)
    roles = classify(kernel)
    if 1 in (roles.m.extent, roles.n.extent, roles.depth) or roles.rhs.op != "load" or roles.packed:
        return None
    if choose_lanewise(kernel, roles, target) is not None:
        return None  # a value for all lanes
    for turned, way in choose_few_rows(kernel, roles, target):
        if way.pays(turned) == 1 and (turned is not roles or (isinstance(way, Stream) and way.beats_panels)):
            return None  # what is read once, or the small one of two
    name, indices = ir.load_parts(roles.rhs)
    position = next(i for i, buffer in enumerate(kernel.buffers) if buffer.name == name)
    buffer = kernel.buffers[position]
    known = tuple(index for index in indices if not isinstance(index, ir.Scalar))
    if len(known) < len(indices) or buffer.dtype is not roles.rhs.dtype or _loads(kernel, name) != 1:
        return None
    columns = choose_tiling(roles, target).nr
    return _Operand(kernel, roles, position, buffer, launch.buffers[position], known, columns)


def _loads(kernel: Kernel, name: str) -> int:
    nodes = ir.postorder([statement.value for statement in kernel.body])
    return sum(node.op == "load" and ir.load_parts(node)[0] == name for node in nodes)


def _read_panels(launch: Launch, operand: _Operand, name: str, shape: Shape) -> None:
    """Let a launch read its right operand from the panels in buffer `name`."""
    panels = Buffer(operand.buffer.name, operand.buffer.dtype, shape)
    # In panels all reduced axes follow each other, so that more of them may be one.
    kernel = collapse(_reading(operand.kernel, operand.roles, panels))
    launch.kernel = _reading(kernel, classify(kernel), panels)
    launch.buffers = tuple(name if i == operand.position else one for i, one in enumerate(launch.buffers))


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


# --- in front of loops ----------------------------------------------------------------------------------------------


def _with_packing(program: Program, steps: Sequence[Step], target: Target) -> list[Step]:
    found: list[Step] = []
    for one in steps:
        if isinstance(one, Branch):
            one.then = _with_packing(program, one.then, target)
            one.otherwise = _with_packing(program, one.otherwise, target)
        elif isinstance(one, Loop):
            found += _pack_before(program, one, target)  # as far outside as can be
            one.header = _with_packing(program, one.header, target)
            one.steps = _with_packing(program, one.steps, target)
        found.append(one)
    return found


def _pack_before(program: Program, loop: Loop, target: Target) -> list[Step]:
    inside = [*loop.header, *loop.steps]
    changed = {program.base(name) for one in walk(inside) for name in written(one)}
    packing: dict[tuple[Any, ...], Launch] = {}
    for launch in launches(inside):
        operand = _right_operand(launch, target)
        if operand is None or not _is_whole(operand):
            continue
        if program.base(operand.source) in changed or program.buffers[operand.source].start != 0:
            continue
        key = (operand.source, operand.indices, operand.buffer.shape, operand.columns)
        if key not in packing:
            packing[key] = _packing(program, launch, operand)
        name = packing[key].buffers[1]
        _read_panels(launch, operand, name, program.buffers[name].shape)
    return list(packing.values())


def _is_whole(operand: _Operand) -> bool:
    """One matrix of known sizes that fills its panels."""
    roles, n = operand.roles, operand.roles.n.extent
    if roles.rhs_batch or roles.segments or not isinstance(n, int) or n == 0 or n % operand.columns:
        return False
    return isinstance(roles.k.extent, int) and all(isinstance(dim, int) for dim in operand.buffer.shape)


def _packing(program: Program, launch: Launch, operand: _Operand) -> Launch:
    """The launch that fills a new temporary with the panels."""
    roles, columns, dtype = operand.roles, operand.columns, operand.buffer.dtype
    panels = roles.n.extent // columns
    name = f"panels{sum(one.startswith('panels') for one in program.buffers)}"
    shape = (panels, roles.k.extent, columns)
    program.buffers[name] = ProgramBuffer(name, "temporary", dtype, shape)
    axes = (Axis("%p", panels), Axis("%k", roles.k.extent), Axis("%c", columns))
    place = {roles.n.name: symbol("%p") * columns + symbol("%c"), roles.k.name: symbol("%k")}
    load = ir.load("b0", tuple(substitute(index, place) for index in operand.indices), dtype)
    store = Store("b1", (symbol("%p"), symbol("%k"), symbol("%c")), load)
    buffers = (Buffer("b0", dtype, operand.buffer.shape), Buffer("b1", dtype, shape))
    kernel = Kernel("loop", buffers, (), axes, (store,))
    return Launch(kernel, (operand.source, name), (), "packing", launch.location)


# --- constants --------------------------------------------------------------------------------------------------------


def _pack_constant(program: Program, launch: Launch, operand: _Operand, packed: dict[tuple[Any, ...], str]) -> None:
    roles, columns = operand.roles, operand.columns
    data = _data(program, operand.source)
    order = [*roles.rhs_batch, *roles.segments, roles.k, roles.n]
    known = address(operand.buffer, operand.indices).known
    offsets = _offsets(known, order) if data is not None else None
    if data is None or offsets is None:
        return
    key = (operand.source, known, tuple(order), columns)
    if key not in packed:
        panels = _panels(data.reshape(-1)[offsets], roles, columns)
        name = f"{operand.source}_panels{len(packed)}"
        packed[key] = _add_constant(program, name, operand.buffer, panels)
    _read_panels(launch, operand, packed[key], program.buffers[packed[key]].shape)


def _transform_constant(program: Program, launch: Launch, found: Winograd, packed: dict[tuple[Any, ...], str]) -> None:
    """Let a convolution with constant filters read them transformed (see `pierian.compiler.schedule.winograd`)."""
    if found.packed:
        return
    kernel = launch.kernel
    name, indices = ir.load_parts(found.rhs)
    position = next(i for i, buffer in enumerate(kernel.buffers) if buffer.name == name)
    buffer, source = kernel.buffers[position], launch.buffers[position]
    data = _data(program, source)
    known = address(buffer, indices).known
    order = [*found.taps, found.channels, found.outputs]
    offsets = _offsets(known, order) if data is not None and _loads(kernel, name) == 1 else None
    if data is None or offsets is None:
        return
    key = ("winograd", source, known, tuple(order), found.nr)
    if key not in packed:
        values = transformed_filters(data.reshape(-1)[offsets])
        panels = np.moveaxis(_in_panels(values, found.nr), -2, 0)
        packed[key] = _add_constant(program, f"{source}_winograd{len(packed)}", buffer, np.ascontiguousarray(panels))
    panels_buffer = Buffer(name, buffer.dtype, program.buffers[packed[key]].shape)
    filters = filters_in_panels(found, name, found.nr)
    reduce = replace(found.reduce, value=ir.scalar("mul", found.reduce.value.dtype, (found.lhs, filters)))
    launch.kernel = replace(
        kernel,
        buffers=tuple(panels_buffer if one.name == name else one for one in kernel.buffers),
        body=tuple(reduce if statement is found.reduce else statement for statement in kernel.body),
    )
    launch.buffers = tuple(packed[key] if i == position else one for i, one in enumerate(launch.buffers))


def _data(program: Program, name: str) -> Array | None:
    buffer = program.buffers[name]
    while buffer.kind == "alias" and buffer.start == 0:
        buffer = program.buffers[buffer.base]
    return np.ascontiguousarray(buffer.data) if buffer.kind == "constant" else None


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
    return np.ascontiguousarray(np.moveaxis(_in_panels(flat, nr), -2, lead))


def _in_panels(values: Array, nr: int) -> Array:
    """[..., n] as [..., n / nr, nr], filled up with zeros."""
    missing = -values.shape[-1] % nr
    wide = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
    return wide.reshape(*wide.shape[:-1], wide.shape[-1] // nr, nr)


def _add_constant(program: Program, name: str, like: Buffer, data: Array) -> str:
    shape = tuple(int(size) for size in data.shape)
    program.buffers[name] = ProgramBuffer(name, "constant", like.dtype, shape, len(program.constants), data=data)
    program.constants.append(name)
    return name
