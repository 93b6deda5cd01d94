"""Convolutions over windows of 3 x 3 with fewer multiplications: Winograd's minimal filtering F(2x2, 3x3).

    y = A^T [ (G w G^T) * (B^T x B) ] A        for every tile of 2 x 2 results, from 4 x 4 elements of x

After the transforms of filters and input each of the 16 elements of a tile is a matrix product of its own, [tiles, channels] times
[channels, outputs]: 16 multiplications where the sums over windows have 36. (Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks, CVPR 2016.) All constants are 0, 1 and 1/2, so that errors stay those of float32 sums; F(4x4, 3x3) would need a
quarter of the multiplications, but its constants up to 8 make errors 2.8 to 5 times those of NumPy's product of windows.

The kernel remains one sum of products; this module finds those that such a schedule may compute, and whether it pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.dim import Dim, ceildiv, product, substitute, symbol, symbols
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel import scalar as ir
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Buffer, Kernel, Reduce, Store
from pierian.compiler.kernel.scalar import Scalar, load_parts, postorder
from pierian.compiler.schedule.contraction import ENOUGH_TASKS, UNROLL, even_blocks
from pierian.compiler.target.features import CACHE_LINE, Target

Array = np.ndarray[Any, Any]

# Results of a tile along an axis, taps of the window, and elements that a tile reads.
OUT, TAPS, IN = 2, 3, 4
# Products for each tile, channel and output.
PLANES = IN * IN
# Rows of a register tile, at most, and register tiles one below the other in a task whose input has been transformed before.
MOST_ROWS = 14
MOST_TURNS = 4
# Products that are added up one after the other; fewer than in other contractions, as nine such sums are added up afterwards: so
# errors stay within those of NumPy's product of windows.
CHAIN = 32
# Vector instructions beside the products: for a vector of channels of a tile to transform and keep it, for a vector of outputs of a
# tile to transform and store it, for a vector of filters, and for each vector of sums that a register tile begins and hands over.
INPUT, OUTPUT, FILTERS, HANDED = 80, 56, 80, 4
# Bytes that the cache beyond the second delivers while a vector is multiplied.
FAR_BYTES = 12
# The share of the direct work from which on fewer multiplications are not worth their larger rounding errors.
WORTHWHILE = 0.9
# What an open size is taken to be.
OPEN = 16


@frozen
class Winograd:
    """A convolution and the choices for it.

    Attributes:
        reduce, lhs, rhs: the sum, the array and the filters that it multiplies.
        points: outer axes that only lhs varies along beside the next two, such as the batch.
        height, width: the outer axes that windows stand along.
        outputs: the outer axis that only rhs varies along.
        taps: the window's axes along height and width.
        channels: the other reduced axis.
        packed: columns of the panels of transformed filters that rhs reads; 0 where filters are transformed in every run.
        lanes: elements of a vector.
        mr, nr: the register tile: mr tiles by nr outputs.
        mb: tiles that one task computes.
        once: whether the input is transformed by a phase of its own, for all tasks, and tasks are panels of outputs as well.
        ahead: as of a contraction's `Tiling`.
        share: predicted time as a share of the direct sums'.
    """

    reduce: Reduce
    lhs: Scalar
    rhs: Scalar
    points: tuple[Axis, ...]
    height: Axis
    width: Axis
    outputs: Axis
    taps: tuple[Axis, Axis]
    channels: Axis
    packed: int
    lanes: int = 1
    mr: int = 1
    nr: int = 1
    mb: int = 1
    once: bool = False
    ahead: int = 0
    share: float = 0.0

    @property
    def pays(self) -> bool:
        """Whether it is the way to go; filters that have been transformed leave no choice."""
        return bool(self.packed) or self.share <= WORTHWHILE

    @property
    def rows(self) -> Axis:
        """Tiles along the height."""
        return Axis("%th", ceildiv(self.height.extent, OUT))

    @property
    def columns(self) -> Axis:
        """Tiles along the width."""
        return Axis("%tw", ceildiv(self.width.extent, OUT))

    @property
    def tiles(self) -> Dim:
        """All tiles."""
        return product([axis.extent for axis in (*self.points, self.rows, self.columns)])

    @property
    def panels(self) -> Dim:
        """Panels of `nr` outputs."""
        return ceildiv(self.outputs.extent, self.nr)

    @property
    def depth(self) -> int:
        """Channels."""
        assert isinstance(self.channels.extent, int)
        return self.channels.extent

    @property
    def row(self) -> int:
        """Elements between the transformed values of two tiles; off a power of two, so that rows do not share cache sets."""
        return -(-self.depth // self.lanes) * self.lanes + self.lanes

    @property
    def chain(self) -> int:
        """Products that are added up one after the other (see the contraction's `Tiling`)."""
        chains = -(-self.depth // CHAIN)
        return -(-self.depth // chains // UNROLL) * UNROLL

    @property
    def filters(self) -> Dim:
        """Elements of all transformed filters."""
        return self.panels * (PLANES * self.depth * self.nr)

    @property
    def multiplications(self) -> Dim:
        """Products of the transformed values."""
        return self.tiles * self.outputs.extent * (PLANES * self.depth)

    @property
    def flops(self) -> Dim:
        """Floating-point operations of products and of the transforms of input and sums."""
        return 2 * self.multiplications + self.tiles * (32 * self.depth + 24 * self.outputs.extent)


def find_winograd(kernel: Kernel, target: Target) -> Winograd | None:
    """A convolution as such a kernel computes it, whether or not it pays; None for other kernels."""
    found = _recognized(kernel)
    return None if found is None else _with_blocks(found, target)


# --- what a kernel is -------------------------------------------------------------------------------------------------


def _recognized(kernel: Kernel) -> Winograd | None:
    reduce = _only_product(kernel)
    if reduce is None:
        return None
    lhs, rhs = reduce.value.args
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    where = _plain_indices(lhs, buffers)
    pairs = _windows(kernel, reduce, where) if where is not None else None
    if where is None or pairs is None:
        return None
    (height, one), (width, other) = pairs
    (channels,) = (axis for axis in reduce.axes if axis not in (one, other))
    depends = Dependencies()
    left, right = depends.of(lhs), depends.of(rhs)
    only_right = [axis for axis in kernel.axes if axis.name not in left]
    points = tuple(axis for axis in kernel.axes if axis.name in left and axis not in (height, width))
    shared = any(axis.name in right for axis in (*points, height, width))
    if len(only_right) != 1 or shared or not isinstance(channels.extent, int) or channels.extent < 1:
        return None
    if step(address(buffers[load_parts(lhs)[0]], where).known, channels.name) != 1:
        return None
    found = Winograd(reduce, lhs, rhs, points, height, width, only_right[0], (one, other), channels, 0)
    packed = _packed_columns(found, buffers)
    if packed == 0 and _plain_indices(rhs, buffers) is None:
        return None
    return replace(found, packed=packed)


def _only_product(kernel: Kernel) -> Reduce | None:
    """The one sum of products of floats over three axes, beside stores."""
    reduces = [statement for statement in kernel.body if isinstance(statement, Reduce)]
    stores = [statement for statement in kernel.body if isinstance(statement, Store) and not statement.axes]
    if kernel.kind != "contraction" or len(reduces) != 1 or len(stores) + 1 != len(kernel.body):
        return None
    (reduce,) = reduces
    fits = reduce.combiner == "sum" and reduce.value.op == "mul" and len(reduce.axes) == 3
    dtype = reduce.value.dtype
    return reduce if fits and dtype.is_float and dtype.bits >= 32 else None


def _plain_indices(operand: Scalar, buffers: dict[str, Buffer]) -> tuple[Dim, ...] | None:
    """Where an operand is loaded, where it is one load at a place that axes and sizes give."""
    if operand.op != "load":
        return None
    name, indices = load_parts(operand)
    known = tuple(index for index in indices if not isinstance(index, Scalar))
    return known if len(known) == len(indices) and buffers[name].dtype is operand.dtype else None


def _windows(
    kernel: Kernel, reduce: Reduce, where: Sequence[Dim]
) -> tuple[tuple[Axis, Axis], tuple[Axis, Axis]] | None:
    """(outer axis, tap) of both axes that windows of three slide along, one step at a time."""
    pairs = []
    for index in where:
        taps = [axis for axis in reduce.axes if axis.extent == TAPS and step(index, axis.name) == 1]
        outer = [axis for axis in kernel.axes if step(index, axis.name) == 1]
        if len(taps) == 1 and len(outer) == 1:
            pairs.append((outer[0], taps[0]))
    names = [axis.name for pair in pairs for axis in pair]
    alone = all(sum(name in symbols(index) for index in where) == 1 for name in names)
    return (pairs[0], pairs[1]) if len(pairs) == 2 and len(set(names)) == 4 and alone else None


# --- filters ------------------------------------------------------------------------------------------------------------


def filters_in_panels(found: Winograd, buffer: str, columns: int) -> Scalar:
    """The filters as an expression over transformed ones in panels [outputs / columns, 4, 4, channels, columns].

    Of the transformed taps 0, 1, 2, 3 of an axis the first and the last are the filter's own; its middle one is 1 minus 2.
    """
    u, v = (symbol(axis.name) for axis in found.taps)
    channel, output = symbol(found.channels.name), symbol(found.outputs.name)
    dtype = found.reduce.value.dtype
    zero, one = ir.const(0, dtype), ir.const(1, ir.int64)

    def at(a: Dim, b: Dim) -> Scalar:
        return ir.load(buffer, (output // columns, a, b, channel, output % columns), dtype)

    def less(value: Scalar, tap: Dim, other: Scalar) -> Scalar:
        return ir.binary("sub", value, ir.select(ir.compare("eq", ir.dim(tap), one), other, zero))

    def row(a: Dim) -> Scalar:
        return less(at(a, v + v // 2), v, at(a, 2))

    return less(row(u + u // 2), u, row(2))


def _packed_columns(found: Winograd, buffers: dict[str, Buffer]) -> int:
    names = {load_parts(node)[0] for node in postorder([found.rhs]) if node.op == "load"}
    if found.rhs.op != "sub" or len(names) != 1:
        return 0
    (name,) = names
    columns = buffers[name].shape[-1] if buffers[name].shape else 0
    is_packed = isinstance(columns, int) and columns > 1 and found.rhs is filters_in_panels(found, name, columns)
    return columns if is_packed and isinstance(columns, int) else 0


def transformed_filters(filters: Array) -> Array:
    """G w G^T of filters [3, 3, ...] as [4, 4, ...], in the order of operations of native code."""

    def along(values: list[Array]) -> list[Array]:
        first, middle, last = values
        half = values[0].dtype.type(0.5)
        ends = first + last
        return [first, (ends + middle) * half, (ends - middle) * half, last]

    rows = [np.stack(along(list(row))) for row in filters]
    return np.stack(along(rows))


# --- choices ------------------------------------------------------------------------------------------------------------


def _with_blocks(found: Winograd, target: Target) -> Winograd:
    bits = found.reduce.value.dtype.bits
    lanes, itemsize = target.lanes(bits), bits // 8
    outputs, tiles = found.outputs.extent, found.tiles
    vectors = 1 if isinstance(outputs, int) and outputs <= lanes else 2
    nr = found.packed or vectors * lanes
    vectors = nr // lanes
    most = min(MOST_ROWS, max(1, (target.vector_registers - vectors - 1) // vectors))
    mr = even_blocks(max(tiles, 1), most, 1) if isinstance(tiles, int) else most
    found = replace(found, lanes=lanes, mr=mr, nr=nr)
    near = target.l2 // 2
    is_near = isinstance(found.filters, int) and found.filters * itemsize <= near
    # A block's transformed values stay in the second-level cache; filters that do not are used by as many tiles as fit.
    fitting = max(1, near // (PLANES * (found.row + nr) * itemsize) // mr)
    mb = mr * (min(2, fitting) if is_near else fitting)
    once = False
    if isinstance(tiles, int) and isinstance(found.panels, int):
        whole = -(-tiles // mr) * mr
        once = found.panels > 1 and -(-tiles // mb) < ENOUGH_TASKS
        mb = min(mr * MOST_TURNS if once else mb, whole)
        while once and mb > 2 * mr and -(-tiles // mb) * found.panels < ENOUGH_TASKS:
            mb -= mr
    ahead = 0 if is_near else -(-nr * itemsize * UNROLL // CACHE_LINE // (mb // mr))
    found = replace(found, mb=mb, once=once, ahead=ahead)
    return replace(found, share=_share(found, itemsize, is_near))


def _share(found: Winograd, itemsize: int, is_near: bool) -> float:
    """Predicted time over that of the direct sums, both in vector instructions; open sizes are taken for OPEN."""

    def known(size: Dim) -> int:
        result = substitute(size, dict.fromkeys(symbols(size), OPEN))
        assert isinstance(result, int)
        return max(result, 1)

    tiles, depth = known(found.tiles), found.depth
    outputs = known(found.panels) * found.nr // found.lanes
    places = known(product([axis.extent for axis in (*found.points, found.height, found.width)]))
    rows = -(-tiles // found.mr) * found.mr
    products = PLANES * rows * outputs * (depth + HANDED)
    direct = TAPS * TAPS * places * outputs * depth
    if not is_near:
        panel = depth * outputs * found.lanes * itemsize // FAR_BYTES
        products = max(products, PLANES * panel * -(-tiles // found.mb))
        direct = max(direct, TAPS * TAPS * panel)
    transforms = tiles * (-(-depth // found.lanes) * INPUT + outputs * OUTPUT)
    if not found.packed:
        transforms += depth * outputs * FILTERS
    return (products + transforms) / direct
