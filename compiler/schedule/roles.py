"""Which part of a contraction each axis plays, whatever the operator was: rows and columns of a register tile, what is walked around
it, and the reduced axes."""

from __future__ import annotations

from pierian.compiler.dim import Dim, product, symbol
from pierian.compiler.errors import LoweringError
from pierian.compiler.frozen import frozen, replace
from pierian.compiler.kernel.access import address, step
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel, Reduce
from pierian.compiler.kernel.scalar import Scalar, load_parts, postorder

# Axes that a kernel lacks because they have one point.
NO_ROWS = Axis("%m_", 1)
NO_COLUMNS = Axis("%n_", 1)


@frozen
class Roles:
    """A contraction's parts: acc[batch, rows, m, n] = sum over segments, k of lhs[batch, rows, m, k] * rhs[batch, k, n].

    Attributes:
        batch: outer axes that both operands (or only rhs) vary along.
        rows: outer axes that only lhs varies along, beside m.
        m, n: the axes of the tile; of one point where the kernel has none.
        segments: reduced axes around k, such as the rows of a convolution's window.
        k: the innermost reduced axis.
        rows_contiguous: lhs lies contiguously along k (else along m or nowhere).
        columns_contiguous: rhs lies contiguously along n (else along k or nowhere).
        lhs_steps: distances of lhs along m and k where it is one plain load with distances known when compiling.
        lhs_size: elements of the array that lhs is read from, where it is one plain load.
        rhs_step: distance between the rows of rhs where it is one plain load, contiguous along n.
        rhs_batch: the batch axes that rhs varies along.
        packed: columns of the panels that rhs lies in already (see `pierian.compiler.lowering.operands`), else 0.
    """

    reduce: Reduce
    lhs: Scalar
    rhs: Scalar
    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    m: Axis
    n: Axis
    segments: tuple[Axis, ...]
    k: Axis
    rows_contiguous: bool
    columns_contiguous: bool
    lhs_steps: tuple[int, int] | None
    lhs_size: Dim | None
    rhs_step: Dim | None
    rhs_batch: tuple[Axis, ...]
    packed: int = 0

    @property
    def depth(self) -> Dim:
        """Products in one sum."""
        return product([axis.extent for axis in (*self.segments, self.k)])

    @property
    def segment_count(self) -> Dim:
        """Points of the axes `segments`."""
        return product([axis.extent for axis in self.segments])

    @property
    def row_count(self) -> Dim:
        """Points of the axes `rows`."""
        return product([axis.extent for axis in self.rows])

    @property
    def batch_count(self) -> Dim:
        """Points of the axes `batch`."""
        return product([axis.extent for axis in self.batch])


def classify(kernel: Kernel) -> Roles:
    """The parts the axes of a contraction kernel play.

    Raises:
        LoweringError: the kernel is no sum of products.
    """
    reduces = [statement for statement in kernel.body if isinstance(statement, Reduce)]
    if len(reduces) != 1 or reduces[0].combiner != "sum" or reduces[0].value.op != "mul" or not reduces[0].axes:
        raise LoweringError("a contraction kernel must be one sum of products")
    (reduce,) = reduces
    lhs, rhs = reduce.value.args
    depends = Dependencies()
    left, right = depends.of(lhs), depends.of(rhs)
    only_left = [axis for axis in kernel.axes if axis.name in left and axis.name not in right]
    only_right = [axis for axis in kernel.axes if axis.name in right and axis.name not in left]
    m = only_left[-1] if only_left else NO_ROWS
    n = only_right[-1] if only_right else NO_COLUMNS
    k = _innermost(kernel, lhs, reduce.axes)
    segments = tuple(axis for axis in reduce.axes if axis is not k and axis.extent != 1)
    rows = tuple(only_left[:-1])
    batch = tuple(axis for axis in kernel.axes if axis not in (m, n, *rows))
    found = Roles(
        reduce, lhs, rhs, batch, rows, m, n, segments, k,
        _is_contiguous(kernel, lhs, k.name),
        _is_contiguous(kernel, rhs, n.name) or not _is_contiguous(kernel, rhs, k.name),
        _lhs_steps(kernel, lhs, m, k, segments),
        _lhs_size(kernel, lhs),
        _rhs_step(kernel, rhs, k, n) if not segments else None,
        tuple(axis for axis in batch if axis.name in right),
    )  # fmt: skip
    return replace(found, packed=_packed_columns(kernel, found))


def _innermost(kernel: Kernel, lhs: Scalar, axes: tuple[Axis, ...]) -> Axis:
    """The reduced axis walked innermost: the last one, or the one lhs lies along where that is another, such as the width of an
    image that has its channels first."""
    known = plain_load(kernel, lhs)
    if known is None or step(known, axes[-1].name) == 1:
        return axes[-1]
    return next((axis for axis in axes if axis.extent != 1 and step(known, axis.name) == 1), axes[-1])


def packed_indices(roles: Roles, columns: int) -> tuple[Dim, ...]:
    """Where rhs is read once it lies in panels [batch..., n / columns, products, n mod columns]."""
    row: Dim = 0
    for axis in (*roles.segments, roles.k):
        row = row * axis.extent + symbol(axis.name)
    n = symbol(roles.n.name)
    return (*(symbol(axis.name) for axis in roles.rhs_batch), n // columns, row, n % columns)


def _packed_columns(kernel: Kernel, roles: Roles) -> int:
    if roles.rhs.op != "load":
        return 0
    name, indices = load_parts(roles.rhs)
    shape = kernel.buffer(name).shape
    columns = shape[-1] if shape else 0
    is_packed = isinstance(columns, int) and columns > 1 and indices == packed_indices(roles, columns)
    return columns if is_packed and isinstance(columns, int) else 0


def _is_contiguous(kernel: Kernel, operand: Scalar, axis: str) -> bool:
    buffers = {buffer.name: buffer for buffer in kernel.buffers}
    for node in postorder([operand]):
        if node.op == "load":
            name, indices = load_parts(node)
            where = address(buffers[name], indices)
            if step(where.known, axis) == 1:
                return True
    return False


def plain_load(kernel: Kernel, operand: Scalar) -> Dim | None:
    """The position an operand is loaded from where it is one load at an affine position."""
    if operand.op != "load":
        return None
    name, indices = load_parts(operand)
    buffer = kernel.buffer(name)
    if buffer.dtype is not operand.dtype:
        return None
    where = address(buffer, indices)
    return None if where.computed else where.known


def _lhs_steps(kernel: Kernel, lhs: Scalar, m: Axis, k: Axis, segments: tuple[Axis, ...]) -> tuple[int, int] | None:
    known = plain_load(kernel, lhs)
    if known is None or any(step(known, axis.name) is None for axis in segments):
        return None
    along_m, along_k = step(known, m.name), step(known, k.name)
    return (along_m, along_k) if isinstance(along_m, int) and isinstance(along_k, int) else None


def _lhs_size(kernel: Kernel, lhs: Scalar) -> Dim | None:
    if plain_load(kernel, lhs) is None:
        return None
    name, _ = load_parts(lhs)
    return product(kernel.buffer(name).shape)


def _rhs_step(kernel: Kernel, rhs: Scalar, k: Axis, n: Axis) -> Dim | None:
    known = plain_load(kernel, rhs)
    return step(known, k.name) if known is not None and step(known, n.name) == 1 else None
