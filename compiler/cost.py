"""What a node or a kernel costs: floating-point operations and bytes, as expressions in the sizes."""

from __future__ import annotations

from pierian.compiler.dim import Dim, product
from pierian.compiler.graph.node import Node
from pierian.compiler.kernel.nodes import Kernel, Reduce
from pierian.compiler.schedule.rows import cost
from pierian.compiler.shape import TensorType


def bytes_of(type_: TensorType) -> Dim:
    """Bytes of a dense tensor."""
    return type_.size * type_.dtype.itemsize


def flops(node: Node) -> Dim:
    """Operations of a node: two for each multiply-add of a product, one for each element reduced, and the operator's own
    estimate for each element of a pointwise result. Movements, inputs and control flow count nothing."""
    op = node.op
    if op.contract_rule is not None:
        extents, _ = op.contract_rule(*(value.type for value in node.inputs), **node.attributes)
        return 2 * (node.output.type.size * product(list(extents)))
    if op.name == "matmul":
        x = node.inputs[0].type
        inner = x.shape[-2] if node.attributes["transpose_a"] and x.rank > 1 else x.shape[-1]
        return 2 * (node.output.type.size * inner)
    if op.reduction is not None:
        return node.inputs[0].type.size
    if op.scalar_rule is not None or op.is_composite:
        return node.output.type.size * op.cost
    return 0


def kernel_flops(kernel: Kernel) -> Dim:
    """Arithmetic of a kernel: the operations of its expressions at every point (see `pierian.compiler.schedule.rows.cost`), and one
    for each element that is reduced."""
    total: Dim = 0
    for statement in kernel.body:
        points = product([axis.extent for axis in (*kernel.axes, *statement.axes)])
        total = total + points * (cost(statement.value) + isinstance(statement, Reduce))
    return total


def kernel_bytes(kernel: Kernel) -> Dim:
    """Bytes a kernel cannot avoid: each of its arrays once, or as many elements as it has points where those are fewer."""
    points = product([axis.extent for axis in kernel.axes])
    inner = [product([axis.extent for axis in statement.axes]) for statement in kernel.body]
    total: Dim = 0
    for buffer in kernel.buffers:
        size = product(list(buffer.shape))
        reached = points * sum(inner)
        if isinstance(size, int) and isinstance(reached, int):
            size = min(size, reached)
        total = total + size * buffer.dtype.itemsize
    return total
