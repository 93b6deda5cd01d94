"""Where temporaries lie: by liveness, memory is used again as soon as its last reader has run.

A *slot* is memory for one temporary after the other. One takes over the slot of another right in the kernel that reads the other for
the last time, where that kernel may write over what it reads (`pierian.compiler.lowering.in_place`). A slot lies in the memory of a
result that has not got its value yet, if there is one that suits, else in the workspace. There slots of known size are packed first,
best fit into the gaps; slots whose size is an expression follow behind them, each in a place of its own size expression that later
slots of the same expression take over. So the total is an expression in the program's symbols, known before the run.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

from pierian.compiler.dim import Dim, ceildiv, product, symbols
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel.program import Branch, Copy, Launch, Loop, Program, ProgramBuffer, Step, touched, walk
from pierian.compiler.lowering.in_place import step_overwrites
from pierian.compiler.options import CompileOptions

# One cache line, and the widest vector: every temporary in the workspace starts at a multiple.
ALIGNMENT = 64
# Slots up to which the best order is looked for; it takes time that grows with the square.
MANY = 2000
# Bytes from which a slot is worth lying in a result, whose memory may begin anywhere, and how many results are looked at for each.
_WORTH_SHARING = 32 * 1024
_HOSTS = 8


@dataclass(slots=True)
class Lifetime:
    """Positions of the first and last step that touch a buffer."""

    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Whether there is a step at which both are alive."""
        return self.first <= other.last and other.first <= self.last


@frozen
class Slot:
    """Memory that temporaries have one after the other.

    Attributes:
        names: the temporaries, in order.
        size: bytes, a multiple of the alignment.
        lifetime: from the first touch of the first to the last touch of the last.
    """

    names: list[str]
    size: Dim
    lifetime: Lifetime


def plan_memory(program: Program, options: CompileOptions | None = None) -> None:
    """Set `host` and `offset` of every temporary and `workspace` of the program; without `reuse_memory` each temporary has memory
    of its own, without `in_place` none takes over memory in the step that reads it last."""
    options = options or CompileOptions()
    liveness = Liveness(program)
    temporaries = {name: one for name, one in liveness.of.items() if program.buffers[name].kind == "temporary"}
    for name in temporaries:
        program.buffers[name].host = ""
    if options.reuse_memory:
        taken = _take_overs(program, liveness) if options.in_place else {}
        slots = _place_in_results(program, _slots(program, temporaries, taken), liveness, options)
    else:
        whole = Lifetime(0, max((one.last for one in temporaries.values()), default=0))
        slots = [Slot([name], _bytes(program.buffers[name]), whole) for name in temporaries]
    end: Dim = _place_static(program, [slot for slot in slots if isinstance(slot.size, int)])
    program.workspace = _place_symbolic(program, [slot for slot in slots if not isinstance(slot.size, int)], end)


class Liveness:
    """When temporaries and results are in use.

    Attributes:
        of: the lifetime of every one that any step touches. What a loop reads from outside lives until the loop's end; what it
            writes first inside is its own. Results live on to the end.
        steps: launches and copies by position.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.of: dict[str, Lifetime] = {}
        self.steps: dict[int, Launch | Copy] = {}
        end = self._visit(program.steps, 0)
        for name in map(program.base, program.outputs):
            if name in self.of:
                self.of[name].last = end

    def _visit(self, steps: Iterable[Step], position: int) -> int:
        for step in steps:
            if isinstance(step, (Launch, Copy)):
                self.steps[position] = step
                self._touch(touched(step), position)
            elif isinstance(step, Branch):
                self._touch((step.condition,), position)
                position = self._visit(step.then, position + 1)
                position = self._visit(step.otherwise, position + 1)
            else:
                position = self._visit_loop(step, position)
            position += 1
        return position

    def _visit_loop(self, step: Loop, position: int) -> int:
        start = position
        position = self._visit(step.header, position + 1)
        if step.condition:
            self._touch((step.condition,), position)
        position = self._visit(step.steps, position + 1)
        walked = self._walked(step)
        for name, lifetime in self.of.items():
            if lifetime.first <= start < lifetime.last:
                lifetime.last = max(lifetime.last, position)
            # What the turns fill slice by slice is alive from the first turn to the last, whatever else a turn computes; so is a
            # result, which the next turn finds written.
            if name in walked or (lifetime.first > start and self.program.buffers[name].kind == "output"):
                lifetime.first, lifetime.last = min(lifetime.first, start), max(lifetime.last, position)
        return position

    def _walked(self, loop: Loop) -> set[str]:
        """The temporaries a loop touches through aliases that move with its counter."""
        names = {name for step in walk([*loop.header, *loop.steps]) for name in touched(step)}
        moving = {name for name in names if any(loop.counter in symbols(one.start) for one in self.program.chain(name))}
        return {base for base in map(self.program.base, moving) if base in self.of}

    def _touch(self, names: Iterable[str], position: int) -> None:
        for base in map(self.program.base, names):
            if self.program.buffers[base].kind not in ("temporary", "output"):
                continue
            found = self.of.setdefault(base, Lifetime(position, position))
            found.last = max(found.last, position)


# --- slots -----------------------------------------------------------------------------------------------------------


def _take_overs(program: Program, liveness: Liveness) -> dict[str, str]:
    """Temporaries that are first written by the step that last reads another one, in its place: new -> old."""
    found: dict[str, str] = {}
    for position, step in liveness.steps.items():
        names = dict.fromkeys(map(program.base, touched(step)))
        mine = [(name, liveness.of[name]) for name in names if program.buffers[name].kind == "temporary"]
        ending = [name for name, one in mine if one.first < position == one.last]
        for new in [name for name, one in mine if one.first == position < one.last]:
            old = next((name for name in ending if step_overwrites(program, step, name, new)), None)
            if old is not None:
                found[new] = old
                ending.remove(old)
    return found


def _slots(program: Program, temporaries: dict[str, Lifetime], taken: dict[str, str]) -> list[Slot]:
    holder: dict[str, Slot] = {}
    found = []
    for name, lifetime in sorted(temporaries.items(), key=lambda item: item[1].first):
        slot = holder.get(taken.get(name, ""))
        if slot is None:
            slot = Slot([], _bytes(program.buffers[name]), Lifetime(lifetime.first, lifetime.last))
            found.append(slot)
        slot.names.append(name)
        slot.lifetime.last = max(slot.lifetime.last, lifetime.last)
        holder[name] = slot
    return found


def _place_in_results(program: Program, slots: list[Slot], liveness: Liveness, options: CompileOptions) -> list[Slot]:
    """Put slots into the memory of results that have not got their value yet, the largest first; those that found no place.

    A variable's new value is no place where it may lie over the old one.
    """
    fixed: list[tuple[int, str]] = []
    open_: dict[Dim, list[str]] = {}
    for name in program.outputs:
        size = _exact_bytes(program.buffers[name])
        if name in program.in_place or name not in liveness.of:
            continue
        if not isinstance(size, int):
            open_.setdefault(size, []).append(name)
        elif size >= _WORTH_SHARING:
            fixed.append((size, name))
    fixed.sort()
    guests: dict[str, list[Lifetime]] = {}
    left = []
    for slot in sorted(slots, key=lambda one: -one.size if isinstance(one.size, int) else 0):
        size = _exact_bytes(program.buffers[slot.names[0]])
        if isinstance(size, int):
            begin = bisect.bisect_left(fixed, (size, ""))
            hosts = [name for _, name in fixed[begin : begin + _HOSTS]] if size >= _WORTH_SHARING else []
        else:
            hosts = open_.get(size, [])[:_HOSTS]
        host = next(
            (one for one in hosts if _may_host(program, liveness, one, slot, guests.get(one, []), options)), None
        )
        if host is None:
            left.append(slot)
            continue
        guests.setdefault(host, []).append(slot.lifetime)
        for name in slot.names:
            program.buffers[name].host, program.buffers[name].offset = host, 0
    return left


def _may_host(
    program: Program, liveness: Liveness, host: str, slot: Slot, guests: list[Lifetime], options: CompileOptions
) -> bool:
    begin = liveness.of[host].first
    if slot.lifetime.last > begin or any(slot.lifetime.meets(guest) for guest in guests):
        return False
    if slot.lifetime.last < begin:
        return True
    step = liveness.steps.get(begin)
    return options.in_place and step is not None and step_overwrites(program, step, slot.names[-1], host)


def _exact_bytes(buffer: ProgramBuffer) -> Dim:
    return product(list(buffer.shape)) * buffer.dtype.itemsize


def _bytes(buffer: ProgramBuffer) -> Dim:
    """The size of a buffer rounded up to the alignment."""
    return ceildiv(_exact_bytes(buffer), ALIGNMENT) * ALIGNMENT


def _place_static(program: Program, slots: list[Slot]) -> int:
    """Best fit, largest first: each goes into the smallest gap left by those it is alive with. Beyond MANY slots in the order of
    time, where only those alive have to be looked at."""
    sizes = [(slot, _known(slot.size)) for slot in slots]
    in_time = len(slots) > MANY
    sizes.sort(key=lambda item: (item[0].lifetime.first, -item[1]) if in_time else (-item[1], item[0].lifetime.first))
    placed: list[tuple[int, int, Lifetime]] = []  # offset, end, lifetime
    total = 0
    for slot, size in sizes:
        if in_time:
            placed = [one for one in placed if one[2].last >= slot.lifetime.first]
        offset = _best_gap(sorted((low, high) for low, high, other in placed if other.meets(slot.lifetime)), size)
        for name in slot.names:
            program.buffers[name].offset = offset
        placed.append((offset, offset + size, slot.lifetime))
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


def _place_symbolic(program: Program, slots: list[Slot], start: Dim) -> Dim:
    """Places by size expression; one is free again after the last step of its holder."""
    end = start
    places: dict[Dim, list[tuple[int, Dim]]] = {}  # size -> (last step of the holder, offset)
    for slot in sorted(slots, key=lambda one: one.lifetime.first):
        free = places.setdefault(slot.size, [])
        position = next((i for i, (last, _) in enumerate(free) if last < slot.lifetime.first), None)
        if position is None:
            offset, end = end, end + slot.size
            free.append((slot.lifetime.last, offset))
        else:
            offset = free[position][1]
            free[position] = (slot.lifetime.last, offset)
        for name in slot.names:
            program.buffers[name].offset = offset
    return end


def _known(size: Dim) -> int:
    assert isinstance(size, int)
    return size
