"""Merging loops: neighbouring axes that every access walks as one become one axis."""

from __future__ import annotations

from pierian.compiler.dim import Dim, substitute, symbols
from pierian.compiler.frozen import replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Statement, Store
from pierian.compiler.kernel.scalar import Scalar


def collapse(kernel: Kernel) -> Kernel:
    """The kernel with neighbouring outer axes merged, and neighbouring inner axes of each statement.

    Axes `a` (slower) and `b` become one axis of extent `|a| * |b|` where every access moves `|b|` times as far for `a`
    as for `b`, and nothing else looks at them. Buffers that are then only walked as a whole are seen flat.
    """
    changed = True
    while changed:
        changed = False
        for slow, fast in _neighbours(kernel):
            merged = _merge(kernel, slow, fast)
            if merged is not None:
                kernel, changed = merged, True
                break
    return kernel


def _neighbours(kernel: Kernel) -> list[tuple[Axis, Axis]]:
    pairs = list(zip(kernel.axes, kernel.axes[1:], strict=False))
    for statement in kernel.body:
        pairs += zip(statement.axes, statement.axes[1:], strict=False)
    return pairs


def _merge(kernel: Kernel, slow: Axis, fast: Axis) -> Kernel | None:
    """One axis instead of two: `fast` takes the product, and `slow` stands at 0 in all indices."""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    for expression in index_expressions(kernel):
        first, second = step(expression, slow.name), step(expression, fast.name)
        if first is None or second is None or first != second * fast.extent:
            return None
    for statement in kernel.body:
        if sum(axis.name in (slow.name, fast.name) for axis in statement.axes) == 1:
            return None
    flattened = {
        name: Buffer(name, buffer.dtype, (buffer_size(buffer),)) if _uses(kernel, name, slow.name) else buffer
        for name, buffer in buffers.items()
    }
    if any(flattened[name] is not buffers[name] and _has_computed_index(kernel, name) for name in buffers):
        return None
    whole = Axis(fast.name, slow.extent * fast.extent)

    def axes(given: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(whole if axis == fast else axis for axis in given if axis != slow)

    rewriter = _Flattener(buffers, flattened, slow.name)
    body: list[Statement] = []
    for statement in kernel.body:
        value = rewriter.expression(statement.value)
        if isinstance(statement, Store):
            indices = rewriter.indices(statement.buffer, statement.indices)
            body.append(replace(statement, value=value, indices=indices, axes=axes(statement.axes)))
        else:
            body.append(replace(statement, value=value, axes=axes(statement.axes)))
    return replace(
        kernel, buffers=tuple(flattened[b.name] for b in kernel.buffers), axes=axes(kernel.axes), body=tuple(body)
    )


def buffer_size(buffer: Buffer) -> Dim:
    size: Dim = 1
    for dim in buffer.shape:
        size = dim * size
    return size


def index_expressions(kernel: Kernel) -> list[Dim]:
    """The address of every access as one expression, and everything else that looks at axes."""
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    found: list[Dim] = []
    for node in ir.postorder(_roots(kernel)):
        if node.op == "load":
            name, indices = ir.load_parts(node)
            found.append(address(buffers[name], indices).known)
        elif node.op == "dim":
            assert not isinstance(node.attribute, (tuple, str)) and node.attribute is not None
            found.append(node.attribute)  # type: ignore[arg-type]
    for statement in kernel.body:
        if isinstance(statement, Store):
            found.append(address(buffers[statement.buffer], statement.indices).known)
    return found


def _roots(kernel: Kernel) -> list[Scalar]:
    roots = [statement.value for statement in kernel.body]
    for statement in kernel.body:
        if isinstance(statement, Store):
            roots += [index for index in statement.indices if isinstance(index, Scalar)]
    return roots


def _accesses(kernel: Kernel, name: str) -> list[tuple[ir.Index, ...]]:
    found = []
    for node in ir.postorder(_roots(kernel)):
        if node.op == "load" and ir.load_parts(node)[0] == name:
            found.append(ir.load_parts(node)[1])
    for statement in kernel.body:
        if isinstance(statement, Store) and statement.buffer == name:
            found.append(statement.indices)
    return found


def _uses(kernel: Kernel, name: str, axis: str) -> bool:
    """True where any access to a buffer moves with the axis."""
    return any(
        not isinstance(index, Scalar) and axis in symbols(index)
        for indices in _accesses(kernel, name)
        for index in indices
    )


def _has_computed_index(kernel: Kernel, name: str) -> bool:
    return any(isinstance(index, Scalar) for indices in _accesses(kernel, name) for index in indices)


class _Flattener:
    """Rewrites accesses to flattened buffers as one index, with the slow axis at 0."""

    def __init__(self, before: dict[str, Buffer], after: dict[str, Buffer], slow: str) -> None:
        self.before = before
        self.after = after
        self.zero: dict[str, Dim] = {slow: 0}
        self.done: dict[Scalar, Scalar] = {}

    def indices(self, name: str, indices: tuple[ir.Index, ...]) -> tuple[ir.Index, ...]:
        if self.after[name] is self.before[name]:
            return tuple(self.done[i] if isinstance(i, Scalar) else i for i in indices)
        return (substitute(address(self.before[name], indices).known, self.zero),)

    def expression(self, root: Scalar) -> Scalar:
        for node in ir.postorder([root]):
            if node in self.done:
                continue
            if node.op == "load":
                name, indices = ir.load_parts(node)
                self.done[node] = ir.load(name, self.indices(name, indices), node.dtype)
            elif node.op == "dim":
                self.done[node] = ir.dim(substitute(node.attribute, self.zero))  # type: ignore[arg-type]
            elif node.args:
                args = tuple(self.done[arg] for arg in node.args)
                self.done[node] = ir.scalar(node.op, node.dtype, args, node.attribute)
            else:
                self.done[node] = node
        return self.done[root]
