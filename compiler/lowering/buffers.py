"""Which array of the program holds each value of the graph."""

from __future__ import annotations

from pierian.compiler.dim import Dim
from pierian.compiler.errors import LoweringError
from pierian.compiler.graph.constants import Constant
from pierian.compiler.graph.node import Value
from pierian.compiler.kernel.program import Program, ProgramBuffer, touched, walk
from pierian.compiler.shape import TensorType


class Buffers:
    """Hands out the buffers of a program and remembers which value lies where."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._names: dict[Value, str] = {}
        self._constants: dict[Constant, str] = {}
        self._counts: dict[str, int] = {}

    def __contains__(self, value: Value) -> bool:
        return value in self._names

    def name(self, value: Value) -> str:
        """The buffer that holds a value.

        Raises:
            LoweringError: the value was never computed; a flaw of the compiler, not of the user's graph.
        """
        found = self._names.get(value)
        if found is None:
            raise LoweringError("a value is read before it is computed", where=value.node.describe())
        return found

    def bind(self, value: Value, buffer: str) -> str:
        """Say that a value lies in a buffer that exists."""
        self._names[value] = buffer
        return buffer

    def add_input(self, value: Value, name: str) -> str:
        """A buffer of the caller's."""
        buffer = self._new(name, "input", value.type)
        buffer.position = len(self.program.inputs)
        self.program.inputs.append(buffer.name)
        return self.bind(value, buffer.name)

    def add_output(self, type_: TensorType, name: str) -> str:
        """A result buffer of the caller's."""
        buffer = self._new(name, "output", type_)
        buffer.position = len(self.program.outputs)
        self.program.outputs.append(buffer.name)
        return buffer.name

    def add_constant(self, value: Value, constant: Constant) -> str:
        """A buffer of the program's own data; equal constants share one."""
        name = self._constants.get(constant)
        if name is None:
            buffer = self._new("c", "constant", constant.type)
            buffer.position = len(self.program.constants)
            buffer.data = constant.array
            self.program.constants.append(buffer.name)
            name = self._constants[constant] = buffer.name
        return self.bind(value, name)

    def temporary(self, value: Value) -> str:
        """The buffer a value is to be written to: one bound before (an output), or a new temporary."""
        if value in self._names:
            return self._names[value]
        return self.bind(value, self._new("t", "temporary", value.type).name)

    def new_temporary(self, type_: TensorType) -> str:
        """A temporary that holds no value of the graph (loop state)."""
        return self._new("t", "temporary", type_).name

    def alias(self, base: str, type_: TensorType, start: Dim = 0) -> str:
        """The bytes of `base` from element `start` on, seen with another shape."""
        buffer = self._new("a", "alias", type_)
        buffer.base, buffer.start = base, start
        return buffer.name

    def _new(self, base: str, kind: str, type_: TensorType) -> ProgramBuffer:
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in base)
        count = self._counts.get(base, 0)
        self._counts[base] = count + 1
        name = base if not count and kind in ("input", "output") else f"{base}{count}"
        while name in self.program.buffers:
            count += 1
            name = f"{base}{count}"
        buffer = ProgramBuffer(name, kind, type_.dtype, type_.shape)
        self.program.buffers[name] = buffer
        return buffer


def drop_unused(program: Program) -> None:
    """Constants that no step reads need no place in the program's data, and temporaries that no step touches none in memory."""
    used = {program.base(name) for step in walk(program.steps) for name in touched(step)}
    unused = {
        one.name for one in program.buffers.values() if one.kind in ("constant", "temporary") and one.name not in used
    }
    program.constants = [name for name in program.constants if name in used]
    for position, name in enumerate(program.constants):
        program.buffers[name].position = position
    for name, buffer in list(program.buffers.items()):
        if name in unused or (buffer.kind == "alias" and buffer.base not in program.buffers):
            del program.buffers[name]
