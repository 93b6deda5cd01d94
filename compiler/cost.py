"""What a node or a kernel costs: floating-point operations and bytes, as expressions in the sizes."""

from __future__ import annotations

from pierian.compiler.dim import Dim, product
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.node import Node
from pierian.compiler.kernel.nodes import Kernel, Product, Reduce
from pierian.compiler.kernel.scalar import Scalar, children, postorder
from pierian.compiler.schedule.rows import cost_of
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
    """Arithmetic of a kernel: the operations of its expressions at every point, and one for each element that is reduced. A sum of
    products counts two for each; what its operands are made of is done once."""
    total: Dim = 0
    for statement in kernel.body:
        over = statement.over if isinstance(statement, Product) else ()
        points = product([axis.extent for axis in (*kernel.axes, *statement.axes, *over)])
        if isinstance(statement, Product) or (kernel.kind == "contraction" and isinstance(statement, Reduce)):
            total = total + 2 * points
        else:
            total = total + points * (_operations(statement.value) + isinstance(statement, Reduce))
    return total


def _operations(root: Scalar) -> int:
    """Operations of an expression (see `pierian.compiler.schedule.rows.cost_of`). Finding out where an element lies, and whether it
    is taken, as at the edges of a padding, is no arithmetic."""
    found = 0
    of_data: set[Scalar] = set()
    for node in postorder([root]):
        if node.op == "load" or any(child in of_data for child in children(node)):
            of_data.add(node)
        if (node.dtype.is_float or node in of_data) and not node.dtype.is_bool and node.op != "select":
            found += cost_of(node)
    return found


def kernel_bytes(kernel: Kernel) -> Dim:
    """Bytes a kernel cannot avoid: each of its arrays once, or as many elements as it has points where those are fewer."""
    points = product([axis.extent for axis in kernel.axes])
    inner = [
        product(
            [axis.extent for axis in (*statement.axes, *(statement.over if isinstance(statement, Product) else ()))]
        )
        for statement in kernel.body
    ]
    total: Dim = 0
    for buffer in kernel.buffers:
        size = product(list(buffer.shape))
        reached = points * sum(inner)
        if isinstance(size, int) and isinstance(reached, int):
            size = min(size, reached)
        total = total + size * buffer.dtype.itemsize
    return total


@frozen
class Peak:
    """What a machine can do at best.

    Attributes:
        flops: float32 operations a second.
        near, far: bytes a second that are read from the last cache, and from memory.
        near_bytes: up to how many bytes a kernel's arrays are taken to lie in the cache.
        source: where these figures are from.
    """

    flops: float
    near: float
    far: float
    near_bytes: int
    source: str

    def shortest(self, flops: float, bytes_: float, bits: int = 32) -> tuple[float, str]:
        """The seconds that work cannot go below on this machine, and what bounds it: a simple roofline."""
        arithmetic = flops * max(bits, 32) / 32 / self.flops
        bandwidth, place = (self.near, "cache") if bytes_ <= self.near_bytes else (self.far, "memory")
        traffic = bytes_ / bandwidth
        return (arithmetic, "arithmetic") if arithmetic >= traffic else (traffic, place)


def kernel_bits(kernel: Kernel) -> int:
    """The width of the widest floats a kernel works on; 32 where there are none."""
    return max((buffer.dtype.bits for buffer in kernel.buffers if buffer.dtype.is_float), default=32)
