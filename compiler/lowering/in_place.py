"""Which stores may go over what they load: variables updated in place, temporaries that take over memory.

The compiler only says what is allowed: `Program.in_place` names results that may lie in the memory of an input, and whoever
calls the program decides. See docs/notes/001-in-place-variables.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pierian.compiler.dim import Dim, product, substitute, symbol, symbols
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address
from pierian.compiler.kernel.nodes import Axis, Kernel, Statement, Store
from pierian.compiler.kernel.program import Branch, Copy, Launch, Loop, Program, Step, touched
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.schedule.rows import groups, keep_rows


@frozen
class Update:
    """A result that replaces a variable.

    Attributes:
        result: the output buffer of the new value.
        old: the input buffer of the old value; empty where the program does not read it.
    """

    result: str
    old: str


def plan_updates(program: Program, updates: Sequence[Update]) -> None:
    """Arrange the steps so that updates come behind the readers of old values, and set `in_place` of the program."""
    store_late(program.steps, updates)
    program.steps = _arranged(program, updates)
    uses = _uses(program, {name for update in updates for name in (update.result, update.old)})
    for update in updates:
        steps = [program.steps[i] for i in sorted(uses[update.result] | uses.get(update.old, set()))]
        reason = refusal(program, steps, update)
        if reason:
            program.two_arrays[update.result] = reason
        else:
            program.in_place[update.result] = update.old


def refusal(program: Program, steps: Sequence[Step], update: Update) -> str:
    """Why a result may not lie in the memory of the old value while these steps run; empty where it may."""
    written = False
    for step in steps:
        access = Access.of(program, step)
        reads, writes = update.old in access.reads, update.result in access.writes
        if reads and written:
            return "its old value is read after the new one is written"
        if reads and writes:
            if isinstance(step, Branch):
                reason = refusal(program, step.then, update) or refusal(program, step.otherwise, update)
            elif isinstance(step, Loop):
                reason = "a loop reads the old value in one turn and writes the new one in another"
            else:
                reason = "" if step_overwrites(program, step, update.old, update.result) else _ELSEWHERE
            if reason:
                return reason
        written = written or writes
    return ""


_ELSEWHERE = "a kernel reads other elements of the old value than it writes"


def store_late(steps: Sequence[Step], updates: Sequence[Update]) -> None:
    """In kernels that read an old value behind the store of the new one, let that store come last, where this helps and no other
    update of the kernel loses by it."""
    replaced = {update.result: update.old for update in updates if update.old}
    for step in steps:
        if not isinstance(step, Launch) or step.kernel.kind != "loop":
            continue
        parameters = dict(zip(step.buffers, (buffer.name for buffer in step.kernel.buffers), strict=True))
        written = [name for name in parameters if replaced.get(name) in parameters]
        inside = [(parameters[replaced[name]], parameters[name]) for name in written]
        for old, result in inside:
            moved = None if may_overwrite(step.kernel, old, result) else _with_store_last(step.kernel, result)
            if moved is None or not may_overwrite(moved, old, result):
                continue
            if all(may_overwrite(moved, *pair) for pair in inside if may_overwrite(step.kernel, *pair)):
                step.kernel = moved


def _with_store_last(kernel: Kernel, result: str) -> Kernel | None:
    """The kernel with its only store to `result` behind all other statements; None where that would mean something else."""
    stores = [s for s in kernel.body if isinstance(s, Store) and s.buffer == result]
    if len(stores) != 1 or stores[0].axes or any(True for s in kernel.body for _ in _loads(s, result)):
        return None
    return replace(kernel, body=(*(s for s in kernel.body if s is not stores[0]), stores[0]))


# --- one kernel ----------------------------------------------------------------------------------------------------


def step_overwrites(program: Program, step: Step, old: str, result: str) -> bool:
    """Whether a step goes on meaning the same if `result` lies in the memory of `old`; both are no aliases."""
    if isinstance(step, Copy):
        whole = all(program.buffers[name].start == 0 for name in _aliases(program, (step.source, step.target)))
        return whole and _same_layout(program, old, result)
    if not isinstance(step, Launch) or not _same_layout(program, old, result):
        return False
    sides: tuple[list[str], list[str]] = ([], [])
    for name, buffer in zip(step.buffers, step.kernel.buffers, strict=True):
        base = program.base(name)
        if base in (old, result):
            if any(program.buffers[one].start != 0 for one in _aliases(program, (name,))):
                return False
            sides[base == result].append(buffer.name)
    return all(may_overwrite(step.kernel, one, other) for one in sides[0] for other in sides[1])


def may_overwrite(kernel: Kernel, old: str, result: str) -> bool:
    """Whether a kernel may be given the same memory for two parameters, `old` which it loads and `result` which it stores.

    Outer points run in any order, so a point may load from `old` only what it stores to `result` itself, and not after storing it.
    """
    if kernel.kind == "loop":
        kernel = keep_rows(kernel)  # code generation may store intermediate values to the result
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    first = next((i for i, s in enumerate(kernel.body) if isinstance(s, Store) and s.buffer == result), None)
    if first is None:
        return True
    store = kernel.body[first]
    assert isinstance(store, Store)
    target = address(buffers[result], store.indices)
    last = _end_of_pass(kernel, first)
    for position, statement in enumerate(kernel.body):
        for node in _loads(statement, old):
            if position > last or kernel.kind in ("serial", "chain", "grid") or target.computed:
                return False
            source = address(buffers[old], ir.load_parts(node)[1])
            if source.computed:
                return False
            if source.known == target.known and not symbols(source.known) & {axis.name for axis in statement.axes}:
                continue  # one element for the whole statement, whatever it walks
            renaming = _renaming(statement.axes, store.axes)
            if renaming is None or substitute(source.known, renaming) != target.known:
                return False
    return True


def _end_of_pass(kernel: Kernel, position: int) -> int:
    """The last statement that is computed before the one at `position` is stored: those of one pass over a row are."""
    end = -1
    for group in groups(kernel.body) if kernel.kind == "loop" else []:
        end += len(group)
        if end >= position:
            return end
    return position


def copied_buffers(step: Launch | Copy) -> tuple[str, str] | None:
    """Source and target of a step that only copies an array, each element to its own place; None for any other."""
    if isinstance(step, Copy):
        return step.source, step.target
    kernel = step.kernel
    if kernel.kind != "loop" or len(kernel.body) != 1 or len(kernel.buffers) != 2:
        return None
    (store,) = kernel.body
    if not isinstance(store, Store) or store.value.op != "load":
        return None
    source = ir.load_parts(store.value)[0]
    one, other = kernel.buffers
    same = one.dtype is other.dtype and product(one.shape) == product(other.shape)
    if source == store.buffer or not same or not may_overwrite(kernel, source, store.buffer):
        return None
    names = {buffer.name: name for buffer, name in zip(kernel.buffers, step.buffers, strict=True)}
    return names[source], names[store.buffer]


def _loads(statement: Statement, name: str) -> list[Scalar]:
    roots = [statement.value]
    if isinstance(statement, Store):
        roots += [index for index in statement.indices if isinstance(index, Scalar)]
    return [node for node in ir.postorder(roots) if node.op == "load" and ir.load_parts(node)[0] == name]


def _renaming(axes: tuple[Axis, ...], targets: tuple[Axis, ...]) -> dict[str, Dim] | None:
    """The axes of one statement as those of another that walks the same points."""
    if [axis.extent for axis in axes] != [axis.extent for axis in targets]:
        return None
    return {axis.name: symbol(target.name) for axis, target in zip(axes, targets, strict=True)}


def _aliases(program: Program, names: Sequence[str]) -> list[str]:
    """The buffers and all they are aliases of."""
    found = []
    for name in names:
        while True:
            found.append(name)
            if program.buffers[name].kind != "alias":
                break
            name = program.buffers[name].base
    return found


def _same_layout(program: Program, old: str, result: str) -> bool:
    one, other = program.buffers[old], program.buffers[result]
    return one.dtype.itemsize == other.dtype.itemsize and product(one.shape) == product(other.shape)


# --- the order of steps --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Access:
    """The buffers, aliases followed to their bases, that a step and all inside it read and write."""

    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)

    @staticmethod
    def of(program: Program, step: Step) -> Access:
        found = Access()
        stack = [step]
        while stack:
            one = stack.pop()
            if isinstance(one, Launch):
                outputs = one.kernel.outputs
                for name, buffer in zip(one.buffers, one.kernel.buffers, strict=True):
                    (found.writes if buffer.name in outputs else found.reads).add(program.base(name))
            elif isinstance(one, Copy):
                found.writes.add(program.base(one.target))
                found.reads.add(program.base(one.source))
            else:
                found.reads.update(program.base(name) for name in touched(one))
                stack += [*one.then, *one.otherwise] if isinstance(one, Branch) else [*one.header, *one.steps]
        return found


def _uses(program: Program, names: set[str]) -> dict[str, set[int]]:
    """The top-level steps that touch each of some buffers."""
    uses: dict[str, set[int]] = {name: set() for name in names}
    for position, step in enumerate(program.steps):
        access = Access.of(program, step)
        for name in (access.reads | access.writes) & names:
            uses[name].add(position)
    return uses


def _arranged(program: Program, updates: Sequence[Update]) -> list[Step]:
    """The top-level steps in an order that keeps every dependency, each update behind all readers of the old value if that can be.

    Among what is ready the original order decides. An update that waits for readers goes on without them when nothing else can.
    """
    steps = program.steps
    accesses = [Access.of(program, step) for step in steps]
    waits = _waits(accesses, updates)
    if not any(reader > writer for reader, writers in waits.items() for writer in writers):
        return steps
    import heapq  # only here: an extension module cannot be loaded while LLVM is

    followers = _followers(accesses)
    missing, waiting = [0] * len(steps), [0] * len(steps)
    for following, counts in ((followers, missing), (waits, waiting)):
        for positions in following.values():
            for position in positions:
                counts[position] += 1
    ready = [i for i, count in enumerate(missing) if not count and not waiting[i]]
    held = [i for i, count in enumerate(missing) if not count and waiting[i]]
    order: dict[int, None] = {}
    while ready or held:
        at = heapq.heappop(ready or held)
        if at in order:
            continue
        order[at] = None
        for position in followers.get(at, ()):
            missing[position] -= 1
            if not missing[position]:
                heapq.heappush(held if waiting[position] else ready, position)
        for position in waits.get(at, ()):
            waiting[position] -= 1
            if not waiting[position] and not missing[position]:
                heapq.heappush(ready, position)
    return [steps[i] for i in order]


def _waits(accesses: Sequence[Access], updates: Sequence[Update]) -> dict[int, list[int]]:
    """For every step the updates that overwrite what it reads, itself left out."""
    writers: dict[str, int] = {}
    results = {update.result for update in updates}
    for position, access in enumerate(accesses):
        for name in access.writes & results:
            writers.setdefault(name, position)
    overwriter = {update.old: writers[update.result] for update in updates if update.result in writers}
    found: dict[int, list[int]] = {}
    for position, access in enumerate(accesses):
        after = {overwriter[name] for name in access.reads & overwriter.keys()} - {position}
        if after:
            found[position] = sorted(after)
    return found


def _followers(accesses: Sequence[Access]) -> dict[int, set[int]]:
    """For every step those that have to come after it: they read what it writes, or write what it touches."""
    writer: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    found: dict[int, set[int]] = {}
    for position, access in enumerate(accesses):
        before = {writer[name] for name in access.reads | access.writes if name in writer}
        before.update(reader for name in access.writes for reader in readers.get(name, ()))
        for earlier in before - {position}:
            found.setdefault(earlier, set()).add(position)
        for name in access.writes:
            writer[name], readers[name] = position, []
        for name in access.reads:
            readers.setdefault(name, []).append(position)
    return found
