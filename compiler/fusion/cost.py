"""The traffic model behind fusion decisions: when computing again is cheaper than memory, when rows are too long."""

from __future__ import annotations

from pierian.compiler.dim import product
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.shape import Shape

# Products of a sum that is long.
LONG_RUN = 64


@frozen
class Limits:
    """The numbers fusion decides by.

    Attributes:
        cluster_cost: scalar operations per point in one kernel; longer kernels spill registers and compile slowly.
        epilogue_cost: the same for what follows a contraction in its kernel.
        epilogue_streams: arrays as large as the result that what follows a contraction may read and write in its kernel. Tiles
            touch each of them in short pieces, at about a third of the speed at which a kernel of its own walks them: SGD
            (one read, one written) is no worse inside, Adam (three and three) takes half the time outside.
        near: bytes of such arrays together that stay in the nearest caches, where walking them in pieces costs nothing.
        far: bytes of an array that the second-level cache does not hold, and the last one not beside others.
        recompute: scalar operations worth computing again instead of a store and a load.
        duplicates: how many kernels may each compute a cheap value again.
        row: elements of a row that fits the second-level cache between passes.
        single_row: elements of a row walked by one thread when there are no outer axes to share out.
        fuse: False keeps every operator that is not an index map in a kernel of its own.
    """

    cluster_cost: int = 400
    epilogue_cost: int = 200
    epilogue_streams: int = 2
    near: int = 1 << 18
    far: int = 1 << 22
    recompute: int = 6
    duplicates: int = 4
    row: int = 1 << 16
    single_row: int = 1 << 13
    fuse: bool = True


def recompute_cost(node: Node) -> int:
    """Scalar operations to compute one element of a node's result again from its inputs."""
    return 0 if node.op.index_map_rule is not None else node.op.cost


def reads_once(node: Node, value: Value) -> bool:
    """Whether a contraction reads each element of an operand once, in long sums: products with vectors do. Memory sets their pace,
    so that a little work on the elements costs nothing (Zen 3, 2048 x 2048, twice each element plus one, or cast from float64:
    0.4 to 0.8 of the time with a kernel of its own). Where elements are read again they would be computed again, or packed: with
    eight rows such products took up to 1.9 times as long so."""
    assert node.op.contract_rule is not None
    extents, _ = node.op.contract_rule(*(one.type for one in node.inputs), **node.attributes)
    depth = product(list(extents))
    return isinstance(depth, int) and depth >= LONG_RUN and node.output.type.size * depth == value.type.size


def is_worth_streaming(node: Node, limits: Limits) -> bool:
    """Whether a pointwise result is so large that storing and reading it takes longer than computing it where it is read. To change
    the width of elements takes shuffles, which only memory is slower than."""
    value = node.output
    resized = any(one.type.dtype.bits != value.type.dtype.bits for one in node.inputs)
    size = value.type.size * value.type.dtype.itemsize
    return isinstance(size, int) and size > (limits.far if resized else limits.near)


def is_free(node: Node) -> bool:
    """True for a node whose elements are known without reading anything: zeros, sizes, one number repeated."""
    if node.op.name == "constant":
        return bool(node.attributes["value"].is_scalar)
    return (not node.inputs or not node.op.reads) and node.op.lower_rule is not None and node.op.cost == 0


def source(value: Value) -> Value:
    """The value whose elements a chain of movements reads, as far back as it is known to have fewest of them (broadcasts)."""
    found = value
    while value.node.op.index_map_rule is not None:
        value = value.node.inputs[0]
        size, known = value.type.size, found.type.size
        if isinstance(size, int) and (not isinstance(known, int) or size <= known):
            found = value
    return found


def is_wide_epilogue(domain: Shape, streams: int, limits: Limits) -> bool:
    """True where a product's result is better written, and what follows walks its arrays in order in a kernel of its own."""
    elements = product(domain)
    far = not isinstance(elements, int) or 4 * elements * streams > limits.near
    return streams > limits.epilogue_streams and far


def is_expensive_row(outer: Shape, row: Shape, limits: Limits) -> bool:
    """True where walking whole rows on one thread would cost more than writing the reduction to memory."""
    elements = product(row)
    limit = limits.row if any(dim != 1 for dim in outer) else limits.single_row
    if isinstance(elements, int):
        return elements > limit
    return all(dim == 1 for dim in outer)
