"""Kernels and programs as text.

    kernel k0 loop (b0: float32[d0, 3], b1: float32[d0, 3]; d0) over %0: d0, %1: 3 {
      %a0 = mul(b0[%0, %1], 2.0)
      b1[%0, %1] = exp(%a0)
    }

Expressions used more than once get names; a statement with inner axes says `for`.
"""

from __future__ import annotations

from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.nodes import Axis, Kernel, Product, Reduce, Scan
from pierian.compiler.kernel.program import Branch, Copy, Launch, Program, Step
from pierian.compiler.kernel.scalar import Index, Scalar


def print_kernel(kernel: Kernel, name: str = "kernel") -> str:
    """The text of one kernel."""
    buffers = ", ".join(f"{b.name}: {b.dtype}[{', '.join(map(str, b.shape))}]" for b in kernel.buffers)
    sizes = f"; {', '.join(kernel.dims)}" if kernel.dims else ""
    local = "".join(f", local {b.name}: {b.dtype}[{', '.join(map(str, b.shape))}]" for b in kernel.local)
    lines = [f"kernel {name} {kernel.kind} ({buffers}{sizes}) over {_axes(kernel.axes) or 'one point'}{local} {{"]
    namer = _Namer(kernel)
    for statement in kernel.body:
        value = namer.text(statement.value, lines)
        over = _axes(statement.axes)
        if isinstance(statement, Reduce):
            lines.append(f"  {statement.name} = {statement.combiner} over {over} of {value}")
        else:
            target = f"{statement.buffer}[{', '.join(namer.index(i, lines) for i in statement.indices)}]"
            if isinstance(statement, Scan):
                value = f"{'exclusive ' * statement.exclusive}{statement.combiner} so far of {value}"
            if isinstance(statement, Product):
                value = f"sum over {_axes(statement.over)} of {value}"
            lines.append(f"  {target} = {value}" + (f"  for {over}" if over else ""))
    return "\n".join([*lines, "}", ""])


def _axes(axes: tuple[Axis, ...]) -> str:
    return ", ".join(f"{axis.name}: {axis.extent}" for axis in axes)


class _Namer:
    """Writes expressions; those with several users are written once, on a line of their own."""

    def __init__(self, kernel: Kernel) -> None:
        self.users: dict[Scalar, int] = {}
        roots = [statement.value for statement in kernel.body]
        for node in ir.postorder(roots):
            for child in ir.children(node):
                self.users[child] = self.users.get(child, 0) + 1
        for root in roots:
            self.users[root] = self.users.get(root, 0) + 1
        self.names: dict[Scalar, str] = {}

    def text(self, root: Scalar, lines: list[str]) -> str:
        texts: dict[Scalar, str] = {}
        for node in ir.postorder([root]):
            if node in self.names:
                texts[node] = self.names[node]
                continue
            text = self._one(node, texts)
            if self.users.get(node, 0) > 1 and node.args:
                name = f"%a{len(self.names)}"
                self.names[node] = name
                lines.append(f"  {name} = {text}")
                text = name
            texts[node] = text
        return texts[root]

    def index(self, entry: Index, lines: list[str]) -> str:
        return self.text(entry, lines) if isinstance(entry, Scalar) else str(entry)

    def _one(self, node: Scalar, texts: dict[Scalar, str]) -> str:
        if node.op == "const":
            return str(node.attribute).lower() if isinstance(node.attribute, bool) else repr(node.attribute)
        if node.op == "load":
            name, indices = ir.load_parts(node)
            inside = ", ".join(texts[i] if isinstance(i, Scalar) else str(i) for i in indices)
            return f"{name}[{inside}]"
        if node.op == "reduced":
            return str(node.attribute)
        if node.op == "dim":
            return f"<{node.attribute}>"
        suffix = f".{node.dtype}" if node.op in ("convert", "bitcast") else ""
        return f"{node.op}{suffix}({', '.join(texts[arg] for arg in node.args)})"


def print_program(program: Program) -> str:
    """The text of a program: buffers with their places, then steps."""
    lines = [f"program {program.name} ({', '.join(program.dims)}) workspace {program.workspace} bytes {{"]
    for buffer in program.buffers.values():
        place = {
            "temporary": f" in {buffer.host}" if buffer.host else f" at {buffer.offset}",
            "alias": f" of {buffer.base} from {buffer.start}",
        }.get(buffer.kind, "")
        if buffer.name in program.in_place:
            place = f" may overwrite {program.in_place[buffer.name] or 'the old value'}"
        elif buffer.name in program.two_arrays:
            place = f" not in place: {program.two_arrays[buffer.name]}"
        lines.append(f"  {buffer.kind} {buffer.name}: {buffer.dtype}[{', '.join(map(str, buffer.shape))}]{place}")
    kernels: dict[Kernel, str] = {}
    _steps(program.steps, "  ", lines, kernels)
    for first, second, reason in program.checks:
        lines.append(f"  check {first} == {second}  # {reason}")
    return "\n".join([*lines, "}", ""])


def _steps(steps: list[Step], indent: str, lines: list[str], kernels: dict[Kernel, str]) -> None:
    for step in steps:
        if isinstance(step, Launch):
            name = kernels.setdefault(step.kernel, f"k{len(kernels)}")
            sizes = f"; {', '.join(map(str, step.dims))}" if step.dims else ""
            lines.append(f"{indent}launch {name}({', '.join(step.buffers)}{sizes})  # {step.label}")
        elif isinstance(step, Copy):
            lines.append(f"{indent}copy {step.target} <- {step.source}")
        elif isinstance(step, Branch):
            lines.append(f"{indent}if {step.condition} {{")
            _steps(step.then, indent + "  ", lines, kernels)
            lines.append(f"{indent}}} else {{")
            _steps(step.otherwise, indent + "  ", lines, kernels)
            lines.append(indent + "}")
        else:
            count = f" {step.count} times" if step.count is not None else ""
            lines.append(f"{indent}loop {step.counter}{count}{', at once' * step.parallel} {{")
            _steps(step.header, indent + "  ", lines, kernels)
            if step.condition:
                lines.append(f"{indent}  while {step.condition}")
            _steps(step.steps, indent + "  ", lines, kernels)
            lines.append(indent + "}")
