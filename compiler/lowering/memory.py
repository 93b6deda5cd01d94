"""Where temporaries lie in the workspace: by liveness, memory is used again as soon as its last reader has run.

Buffers of known size are packed first, best fit into the gaps; buffers whose size is an expression follow behind
them, each in a slot of its own size expression that later buffers of the same expression take over. So the total is
an expression in the program's symbols, known before the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pierian.compiler.dim import Dim, ceildiv, symbols
from pierian.compiler.kernel.program import Branch, Copy, Launch, Loop, Program, ProgramBuffer, Step, touched, walk

# One cache line, and the widest vector: every temporary starts at a multiple.
ALIGNMENT = 64


@dataclass(slots=True)
class Lifetime:
    """Positions of the first and last step that touch a temporary."""

    first: int
    last: int


def plan_memory(program: Program, reuse: bool = True) -> None:
    """Set `offset` of every temporary and `workspace` of the program; without `reuse` each has memory of its own."""
    lifetimes = live_ranges(program)
    if not reuse:
        whole = Lifetime(0, max((one.last for one in lifetimes.values()), default=0))
        lifetimes = dict.fromkeys(lifetimes, whole)
    static = [(b, r) for b, r in lifetimes.items() if isinstance(_bytes(program.buffers[b]), int)]
    symbolic = [(b, r) for b, r in lifetimes.items() if not isinstance(_bytes(program.buffers[b]), int)]
    end: Dim = _place_static(program, static)
    program.workspace = _place_symbolic(program, symbolic, end)


def live_ranges(program: Program) -> dict[str, Lifetime]:
    """The lifetime of every temporary that any step touches.

    What a loop reads from outside lives until the loop's end; what it writes first inside is its own.
    """
    lifetimes: dict[str, Lifetime] = {}
    position = _visit(program, program.steps, 0, lifetimes)
    for name in program.outputs:
        base = program.base(name)
        if base in lifetimes:
            lifetimes[base].last = position
    return lifetimes


def _visit(program: Program, steps: Iterable[Step], position: int, lifetimes: dict[str, Lifetime]) -> int:
    for step in steps:
        if isinstance(step, Launch):
            _touch(program, step.buffers, position, lifetimes)
        elif isinstance(step, Copy):
            _touch(program, (step.target, step.source), position, lifetimes)
        elif isinstance(step, Branch):
            _touch(program, (step.condition,), position, lifetimes)
            position = _visit(program, step.then, position + 1, lifetimes)
            position = _visit(program, step.otherwise, position + 1, lifetimes)
        else:
            position = _visit_loop(program, step, position, lifetimes)
        position += 1
    return position


def _visit_loop(program: Program, step: Loop, position: int, lifetimes: dict[str, Lifetime]) -> int:
    start = position
    position = _visit(program, step.header, position + 1, lifetimes)
    if step.condition:
        _touch(program, (step.condition,), position, lifetimes)
    position = _visit(program, step.steps, position + 1, lifetimes)
    for lifetime in lifetimes.values():
        if lifetime.first <= start < lifetime.last:
            lifetime.last = max(lifetime.last, position)
    # What the turns fill slice by slice is alive from the first turn to the last, whatever else a turn computes.
    for name in _walked(program, step):
        lifetime = lifetimes[name]
        lifetime.first, lifetime.last = min(lifetime.first, start), max(lifetime.last, position)
    return position


def _walked(program: Program, loop: Loop) -> set[str]:
    """The temporaries a loop touches through aliases that move with its counter."""
    names = {name for step in walk([*loop.header, *loop.steps]) for name in touched(step)}
    moving = {name for name in names if loop.counter in symbols(program.buffers[name].start)}
    return {base for base in map(program.base, moving) if program.buffers[base].kind == "temporary"}


def _touch(program: Program, names: Iterable[str], position: int, lifetimes: dict[str, Lifetime]) -> None:
    for name in names:
        base = program.base(name)
        if program.buffers[base].kind != "temporary":
            continue
        found = lifetimes.get(base)
        if found is None:
            lifetimes[base] = Lifetime(position, position)
        else:
            found.last = max(found.last, position)


def _bytes(buffer: ProgramBuffer) -> Dim:
    """The size of a buffer rounded up to the alignment."""
    size: Dim = buffer.dtype.itemsize
    for dim in buffer.shape:
        size = dim * size
    return ceildiv(size, ALIGNMENT) * ALIGNMENT


def _place_static(program: Program, temporaries: list[tuple[str, Lifetime]]) -> int:
    """Best fit, largest first: each goes into the smallest gap left by those it is alive with."""
    placed: list[tuple[int, int, Lifetime]] = []  # offset, end, lifetime
    total = 0
    sizes = {name: _bytes(program.buffers[name]) for name, _ in temporaries}
    for name, lifetime in sorted(temporaries, key=lambda item: (-_known(sizes[item[0]]), item[1].first)):
        size = sizes[name]
        assert isinstance(size, int)
        alive = sorted(
            (offset, end)
            for offset, end, other in placed
            if other.first <= lifetime.last and lifetime.first <= other.last
        )
        offset = _best_gap(alive, size)
        program.buffers[name].offset = offset
        placed.append((offset, offset + size, lifetime))
        total = max(total, offset + size)
    return total


def _best_gap(alive: list[tuple[int, int]], size: int) -> int:
    best, best_room, end = -1, -1, 0
    for offset, stop in alive:
        room = offset - end
        if room >= size and (best < 0 or room < best_room):
            best, best_room = end, room
        end = max(end, stop)
    return best if best >= 0 else end


def _place_symbolic(program: Program, temporaries: list[tuple[str, Lifetime]], start: Dim) -> Dim:
    """Slots by size expression; a slot is free again after the last step of its holder."""
    end = start
    slots: dict[Dim, list[tuple[int, Dim]]] = {}  # size -> (last step of the holder, offset)
    for name, lifetime in sorted(temporaries, key=lambda item: item[1].first):
        buffer = program.buffers[name]
        size = _bytes(buffer)
        free = slots.setdefault(size, [])
        for position, (last, offset) in enumerate(free):
            if last < lifetime.first:
                buffer.offset = offset
                free[position] = (lifetime.last, offset)
                break
        else:
            buffer.offset = end
            free.append((lifetime.last, end))
            end = end + size
    return end


def _known(size: Dim) -> int:
    assert isinstance(size, int)
    return size
