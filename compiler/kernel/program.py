"""A Program: kernels, the buffers they work on, control flow, and where each buffer lies.

Program   buffers, steps
Step      Launch kernel(buffers; dims) | Branch | Loop | Copy
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from pierian.compiler.dim import Dim
from pierian.compiler.dtype import DType
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.location import Location
from pierian.compiler.shape import Shape

# Where a buffer's bytes come from. input: the caller's array. output: the caller's result array.
# constant: the program's own data. temporary: the workspace at `offset`, or the result `host` before it has its value. alias: the
# bytes of buffer `base`, seen with another shape, from element `start` on.
BUFFER_KINDS = ("input", "output", "constant", "temporary", "alias")
# How many turns a loop is taken to have whose count only a run tells.
UNKNOWN_COUNT = 1024


@dataclass(slots=True)
class ProgramBuffer:
    """One array of a program.

    Attributes:
        position: index among the inputs, outputs or constants for those kinds.
        host, offset: for temporaries, set by the memory plan: the output buffer it lies in, empty for the workspace, where it
            begins at a multiple of 64 bytes.
        base, start: for an alias: whose bytes, and from which element (a Dim; loop counters allowed as symbols).
        data: for a constant: the NumPy array.
    """

    name: str
    kind: str
    dtype: DType
    shape: Shape
    position: int = -1
    host: str = ""
    offset: Dim = 0
    base: str = ""
    start: Dim = 0
    data: Any = None


@dataclass(slots=True)
class Launch:
    """Run a kernel. `buffers` and `dims` are the actual parameters, in the kernel's order."""

    kernel: Kernel
    buffers: tuple[str, ...]
    dims: tuple[Dim, ...]
    label: str = ""
    location: Location | None = None


@dataclass(slots=True)
class Copy:
    """Copy all bytes of `source` to `target` (equal type and size)."""

    target: str
    source: str


@dataclass(slots=True)
class Branch:
    """Run `then` where the bool scalar buffer `condition` is true, else `otherwise`."""

    condition: str
    then: list[Step]
    otherwise: list[Step]


@dataclass(slots=True)
class Loop:
    """Repeat `steps`.

    With `count` a Dim the loop runs that many times and the symbol `counter` (a name beginning with `%`)
    counts 0, 1, ..., usable in `start` of aliases and in dims of launches inside. Without `count`, `header` runs, then
    the bool scalar buffer `condition` decides whether `steps` run and the loop goes on (while).
    With both, the loop ends at whichever comes first. With `parallel` no turn reads or writes what another one writes: they may run
    in any order, on any thread; such a loop has a count only and stands in no other.
    """

    counter: str
    count: Dim | None
    condition: str
    header: list[Step]
    steps: list[Step]
    parallel: bool = False


Step = Union[Launch, Copy, Branch, Loop]


def held(step: Step) -> tuple[list[Step], ...]:
    """The lists of steps that a branch or a loop holds, in the order of the program."""
    if isinstance(step, Branch):
        return step.then, step.otherwise
    return (step.header, step.steps) if isinstance(step, Loop) else ()


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step in the order of the program, those inside a branch or a loop behind the one that holds them."""
    for step in steps:
        yield step
        for inner in held(step):
            yield from walk(inner)


def launches(steps: Sequence[Step]) -> list[Launch]:
    """All launches, those in branches and loops too."""
    return [step for step in walk(steps) if isinstance(step, Launch)]


def launch_counts(steps: Sequence[Step], times: int = 1) -> Counter[Kernel]:
    """How often `times` runs launch each kernel, those in branches and loops too; a loop of unknown length counts as a long one."""
    found: Counter[Kernel] = Counter()
    for step in steps:
        if isinstance(step, Launch):
            found[step.kernel] += times
        turns = 1
        if isinstance(step, Loop):
            turns = step.count if isinstance(step.count, int) else UNKNOWN_COUNT
        for inner in held(step):
            found.update(launch_counts(inner, times * turns))
    return found


def shared_out(steps: Sequence[Step]) -> Iterator[Launch | Loop]:
    """What the pool's threads share out among them: parallel loops, and the launches that are in none."""
    for step in steps:
        if isinstance(step, Branch):
            yield from shared_out([*step.then, *step.otherwise])
        elif isinstance(step, Loop) and not step.parallel:
            yield from shared_out([*step.header, *step.steps])
        elif not isinstance(step, Copy):
            yield step


def touched(step: Step) -> tuple[str, ...]:
    """The buffers a step reads or writes itself, what it holds left out."""
    if isinstance(step, Launch):
        return step.buffers
    if isinstance(step, Copy):
        return (step.target, step.source)
    return (step.condition,) if step.condition else ()


def written(step: Step) -> tuple[str, ...]:
    """The buffers a step stores to itself, what it holds left out."""
    if isinstance(step, Launch):
        outputs = step.kernel.outputs
        pairs = zip(step.buffers, step.kernel.buffers, strict=True)
        return tuple(name for name, buffer in pairs if buffer.name in outputs)
    return (step.target,) if isinstance(step, Copy) else ()


@dataclass(slots=True)
class Program:
    """What the graph compiles to, before it is scheduled for a target.

    Attributes:
        dims: the size symbols of the whole program, in the order the entry point takes them.
        checks: pairs of sizes that must be equal for the inputs to fit, with the reason and place.
        workspace: bytes of the temporaries together, set by the memory plan.
        in_place: outputs whose memory may be that of an input, and which input; an empty name where a variable is replaced
            that the program does not read. The caller decides (see docs/notes/001-in-place-variables.md).
        two_arrays: the other outputs that replace an input, and why their memory must be another.
    """

    name: str
    dims: tuple[str, ...] = ()
    buffers: dict[str, ProgramBuffer] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    workspace: Dim = 0
    checks: list[tuple[Dim, Dim, str]] = field(default_factory=list)
    in_place: dict[str, str] = field(default_factory=dict)
    two_arrays: dict[str, str] = field(default_factory=dict)

    def chain(self, name: str) -> Iterator[ProgramBuffer]:
        """A buffer, and where it is an alias, what it sees, down to what holds the bytes."""
        buffer = self.buffers[name]
        yield buffer
        while buffer.kind == "alias":
            buffer = self.buffers[buffer.base]
            yield buffer

    def base(self, name: str) -> str:
        """The buffer whose bytes an alias sees; any other buffer is its own."""
        *_, last = self.chain(name)
        return last.name
