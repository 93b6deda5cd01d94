"""Launches as statements over the buffers of their program, and what may be moved past what in a list of steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pierian.compiler.dim import Dim, Symbolic, symbol
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Buffer, Reduce, Statement, Store
from pierian.compiler.kernel.program import Launch, Program, Step, touched, walk, written
from pierian.compiler.kernel.scalar import Scalar
from pierian.compiler.lowering.kernel import Renamer


@frozen
class Part:
    """A launch as statements over the program's own buffers and sizes."""

    launch: Launch
    axes: tuple[Axis, ...]
    body: tuple[Statement, ...]
    buffers: dict[str, Buffer]

    @staticmethod
    def of(launch: Launch) -> Part:
        kernel = launch.kernel
        names = {buffer.name: name for buffer, name in zip(kernel.buffers, launch.buffers, strict=True)}
        rename = Renamer(names, dict(zip(kernel.dims, launch.dims, strict=True)))
        buffers = [rename.buffer(buffer) for buffer in kernel.buffers]
        axes = tuple(rename.axis(axis) for axis in kernel.axes)
        return Part(
            launch, axes, tuple(map(rename.statement, kernel.body)), {buffer.name: buffer for buffer in buffers}
        )

    @property
    def reduces(self) -> list[Reduce]:
        return [statement for statement in self.body if isinstance(statement, Reduce)]

    @property
    def stores(self) -> list[Store]:
        return [statement for statement in self.body if isinstance(statement, Store)]

    def loads(self, name: str) -> list[Scalar]:
        """The distinct loads of a buffer."""
        return loads_of([statement.value for statement in self.body], name)


def loads_of(roots: Iterable[Scalar], name: str) -> list[Scalar]:
    """The distinct loads of a buffer in some expressions."""
    return [node for node in ir.postorder(roots) if node.op == "load" and ir.load_parts(node)[0] == name]


def matched(stored: Sequence[ir.Index], read: Sequence[ir.Index]) -> dict[str, Dim] | None:
    """The axes by which an array is stored, in terms of those by which it is read; each index is one axis, and none stands twice."""
    found: dict[str, Dim] = {}
    for one, other in zip(stored, read, strict=True):
        if one == other == 0:
            continue
        if not isinstance(one, Symbolic) or not isinstance(other, Symbolic) or str(one) in found:
            return None
        if not str(one).startswith("%") or not str(other).startswith("%") or one != symbol(str(one)):
            return None
        if other != symbol(str(other)):
            return None
        found[str(one)] = other
    return found if len(set(found.values())) == len(found) else None


def parameters(statements: Sequence[Statement], known: dict[str, Buffer]) -> list[Buffer]:
    """The buffers that statements touch, in order of first use."""
    found: dict[str, None] = {}
    for statement in statements:
        for node in ir.postorder([statement.value]):
            if node.op == "load":
                found[ir.load_parts(node)[0]] = None
        if isinstance(statement, Store):
            found[statement.buffer] = None
    return [known[name] for name in found if name in known]


class Surroundings:
    """Who else touches what a program's launches write.

    Attributes:
        users: for each buffer that holds bytes, how many steps touch those.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.users: dict[str, int] = {}
        self._aliased = {buffer.base for buffer in program.buffers.values() if buffer.kind == "alias"}
        for step in walk(program.steps):
            for name in dict.fromkeys(map(program.base, touched(step))):
                self.users[name] = self.users.get(name, 0) + 1

    def is_private(self, name: str) -> bool:
        """Whether a buffer is a temporary that is seen by its own name only."""
        return self.program.buffers[name].kind == "temporary" and name not in self._aliased

    def made_by(self, steps: Sequence[Step], load: Scalar, writer: dict[str, int], kind: str) -> int | None:
        """Where the temporary that is loaded is written, by a kernel of some kind; None where it may be seen by others."""
        name, _ = ir.load_parts(load)
        position = writer.get(name)
        if position is None or not self.is_private(name):
            return None
        step = steps[position]
        return position if isinstance(step, Launch) and step.kernel.kind == kind else None

    def may_move(self, steps: Sequence[Step], moved: Collection[int], to: int, gone: Collection[int] = ()) -> bool:
        """Whether steps may all run where the one at `to` stands: none of those that they pass, except each other and those that
        are `gone`, touches what they write or writes what they touch."""
        for position in moved:
            reach, outputs = self._bases([steps[position]])
            low, high = sorted((position, to))
            for between in range(low + 1, high):
                if between in moved or between in gone:
                    continue
                touches, writes = self._bases([steps[between]])
                if reach & writes or outputs & touches:
                    return False
        return True

    def _bases(self, steps: Sequence[Step]) -> tuple[set[str], set[str]]:
        """The buffers whose bytes steps touch, and those that they write."""
        inside, base = list(walk(steps)), self.program.base
        return {base(n) for one in inside for n in touched(one)}, {base(n) for one in inside for n in written(one)}
