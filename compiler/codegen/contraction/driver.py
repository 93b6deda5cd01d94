"""Contraction kernels: a phase that packs the right operand, where that pays, and one that computes blocks of results."""

from __future__ import annotations

from pierian.compiler.codegen.abi import KernelCode, Phase
from pierian.compiler.codegen.contraction.blocks import BlockEmitter
from pierian.compiler.codegen.contraction.dots import emit_dots
from pierian.compiler.codegen.contraction.rhs import RhsPacker
from pierian.compiler.codegen.contraction.small import SMALL_PACKING, SMALL_WORK, is_at_most
from pierian.compiler.codegen.contraction.splits import SplitFinisher
from pierian.compiler.codegen.contraction.streams import emit_stream
from pierian.compiler.codegen.loops.emit import emit_loop
from pierian.compiler.dim import Dim
from pierian.compiler.elementary import expand_kernel
from pierian.compiler.frozen import replace
from pierian.compiler.kernel.nodes import Kernel, Reduce
from pierian.compiler.schedule.collapse import collapse
from pierian.compiler.schedule.contraction import Tiling, choose_tiling
from pierian.compiler.schedule.few_rows import choose_few_rows
from pierian.compiler.schedule.lanewise import Lanewise, choose_lanewise
from pierian.compiler.schedule.roles import Roles, classify
from pierian.compiler.schedule.streams import Stream
from pierian.compiler.schedule.winograd import Winograd, find_winograd
from pierian.compiler.target.features import Target


def emit_contraction(kernel: Kernel, name: str, target: Target) -> KernelCode:
    """Native code of a contraction kernel."""
    winograd = find_winograd(kernel, target)
    if winograd is not None and winograd.pays:
        from pierian.compiler.codegen.contraction.winograd import emit_winograd  # only here: takes a while to import

        return emit_winograd(kernel, name, winograd, target)
    kernel = collapse(kernel)
    roles = classify(kernel)
    lanewise = choose_lanewise(kernel, roles, target)
    if lanewise is not None:
        return _emit_lanewise(kernel, name, roles, lanewise, target)
    ways: list[tuple[Dim, KernelCode]] = []
    for turned, way in choose_few_rows(kernel, roles, target):
        expanded, turned = _expanded(kernel, turned, target.isa)
        own = f"{name}_{len(ways)}"
        if isinstance(way, Stream):
            code = emit_stream(expanded, own, turned, way, target.isa)
        else:
            code = emit_dots(expanded, own, turned, way, target.isa)
        ways.append((way.pays(turned), code))
    if not ways or ways[-1][0] != 1:
        ways.append((1, _emit_general(kernel, name, roles, winograd, target)))
    return _first_of(ways)


def _emit_lanewise(kernel: Kernel, name: str, roles: Roles, lanewise: Lanewise, target: Target) -> KernelCode:
    from pierian.compiler.codegen.contraction.lanewise import emit_lanewise  # only here: takes a while to import

    expanded, roles = _expanded(kernel, roles, target.isa)
    return emit_lanewise(expanded, name, roles, lanewise, target.isa)


def _first_of(ways: list[tuple[Dim, KernelCode]]) -> KernelCode:
    """A kernel that runs the first way whose condition is 1, not 0, in each run: the phases of the others have no tasks then."""
    if len(ways) == 1:
        return ways[0][1]
    phases: list[Phase] = []
    left: Dim = 1  # whether none before is taken
    for condition, code in ways:
        phases += [replace(phase, tasks=phase.tasks * (condition * left)) for phase in code.phases]
        left = left * (1 - condition)
    return KernelCode.joined([code for _, code in ways], phases)


def _emit_general(kernel: Kernel, name: str, roles: Roles, winograd: Winograd | None, target: Target) -> KernelCode:
    """By register tiles of panels, or of operands read in place; a loop where nothing is used twice."""
    if 1 in (roles.m.extent, roles.n.extent, roles.depth):
        return emit_loop(replace(kernel, kind="loop"), name, target)
    tiling = choose_tiling(roles, target)
    expanded, roles = _expanded(kernel, roles, target.isa)
    packer = RhsPacker(f"{name}_p", expanded, roles, tiling, target.isa)
    packed = packer.elements * roles.reduce.value.dtype.itemsize
    blocks = BlockEmitter(f"{name}_f", expanded, roles, tiling, target.isa, packed)
    work = roles.batch_count * roles.row_count * roles.m.extent * roles.n.extent * roles.depth
    small = is_at_most(work, SMALL_WORK)
    phases, functions = [], []
    if packer.tasks != 0:
        functions.append(packer.emit())
        phases.append(Phase(f"{name}_p", packer.tasks, small or is_at_most(packer.elements, SMALL_PACKING)))
    functions.append(blocks.emit())
    parts = [*blocks.microkernels(), *packer.helpers()]
    phases.append(Phase(f"{name}_f", blocks.tasks, small))
    if blocks.split:
        finisher = SplitFinisher(f"{name}_s", expanded, roles, tiling, target.isa, packed)
        functions.append(finisher.emit())
        phases.append(Phase(f"{name}_s", finisher.tasks, small))
    note = _note(roles, tiling, winograd)
    return KernelCode.of(functions, phases, note, packed + blocks.shared, blocks.scratch, parts)


def _expanded(kernel: Kernel, roles: Roles, isa: str) -> tuple[Kernel, Roles]:
    """The kernel with elementary functions written out, and its roles."""
    expanded = expand_kernel(kernel, isa)
    reduce = next(statement for statement in expanded.body if isinstance(statement, Reduce))
    lhs, rhs = reduce.value.args
    if roles.lhs is roles.reduce.value.args[1] and roles.rhs is roles.reduce.value.args[0]:
        lhs, rhs = rhs, lhs
    return expanded, replace(roles, reduce=reduce, lhs=lhs, rhs=rhs)


def _note(roles: Roles, tiling: Tiling, winograd: Winograd | None) -> str:
    """The choices, for people."""
    r, t = roles, tiling
    rows = f"{r.row_count} x {r.m.extent}" if r.rows else f"{r.m.extent}"
    depth = f"{r.depth}" if not r.segments else f"{r.depth} in segments of {r.k.extent}"
    lhs = "in place" if t.lhs_in_place else f"packed along {'k' if r.rows_contiguous else 'm'}"
    rhs = {
        "never": "packed" if r.columns_contiguous else "packed and transposed",
        "panel by panel": f"packed {'' if r.columns_contiguous else 'and transposed '}"
        + ("panel by panel" if t.panels == 1 else f"by {t.panels} panels"),
        "always": "in place",
        "panels": "a packed constant",
        "few rows": f"in place up to {t.few_rows} rows, else packed",
    }[t.rhs_in_place]
    low = f" or {t.low}" if t.low else ""
    block = f"{t.rb} x {t.mb}" if r.rows else f"{t.mb}"
    refused = f"; winograd would take {winograd.share:.2f} of the time" if winograd else ""
    splits = f"; sums in up to {t.splits} splits" if t.splits > 1 else ""
    later = "; lines of lhs are fetched for later tiles" if t.later else ""
    chains = f"chains of {t.chain}{' segments' if t.lhs_in_place and t.sb > 1 else ''}"
    return (
        f"contraction {rows} x {r.n.extent} x {depth}, tile {t.mr}{low} x {t.nr}, block {block} x {t.nb} x {t.part} in {chains}, "
        f"lhs {lhs}, rhs {rhs}{splits}{later}{refused}"
    )
