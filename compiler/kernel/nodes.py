"""The loop IR: kernels over index spaces, and the buffers they read and write.

    Kernel     name(buffers; dims) over axes { statements }
    Statement  Reduce name = combiner over axes of value
             | Store  buffer[indices] = value, for all points of axes
             | Scan   buffer[indices] = combiner of the values so far, point after point of one axis
             | Product buffer[indices] = sum over its own axes of value, for all points of axes
    Axis       a named symbol `%x` running over 0 <= %x < extent

A kernel runs its statements in order at every point of its *outer* axes. A statement adds axes of its own
(*inner* axes): a Reduce combines its value over them, a Store writes at each of their points. An expression may
use `reduced(name)` of earlier statements, and may load an element that an earlier Store of the same kernel
wrote at the same point. Outer points are independent of each other and run in any order, on any thread.

    softmax:  outer %i:n
              m = max over %j:1024 of x[%i, %j]
              s = sum over %k:1024 of exp(x[%i, %k] - m)
              y[%i, %l] = exp(x[%i, %l] - m) / s      for %l:1024

A matrix product is the same notation: outer %i, %j, `acc = sum over %k of a[%i, %k] * b[%k, %j]`, and a Store that
uses `reduced(acc)` (the epilogue); its kind says that the contraction schedule applies.

A chain of two products holds what is between them in *local* buffers, which every outer point has for itself:

    attention: outer %i:n, local %s: float32[t], %o: float32[d]
              %s[%c] = sum over %k:d of q[%i, %k] * k[%c, %k]                       for %c:t
              m = max over %c:t of %s[%c]
              l = sum over %c:t of exp(%s[%c] - m)
              %o[%j] = sum over %c:t of exp(%s[%c] - m) / l * v[%c, %j]              for %j:d
              y[%i, %j] = %o[%j]                                                   for %j:d

A grid holds whole matrices in local buffers: its outer points are those of a batch, and its statements walk rows and columns.

    gradient: outer %b:h, local %s: float32[n, t], %w: float32[n, t], %o: float32[t, d]
              %s[%i, %c] = sum over %k:d of q[%b, %i, %k] * k[%b, %c, %k]              for %i:n, %c:t
              %w[%i, %c] = exp(%s[%i, %c] - m[%b, %i]) / l[%b, %i]                     for %i:n, %c:t
              %o[%c, %j] = sum over %i:n of %w[%i, %c] * g[%b, %i, %j]                  for %c:t, %j:d
              dv[%b, %c, %j] = %o[%c, %j]                                              for %c:t, %j:d

All buffers are dense and row-major; views are index maps. An outer loop over no axes is one point.
"""

from __future__ import annotations

from typing import Union

from pierian.compiler.dim import Dim
from pierian.compiler.dtype import DType
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel.scalar import Index, Scalar
from pierian.compiler.shape import Shape

# Combiners and what an empty reduction gives. argmax/argmin give the int64 position along their single axis of
# the first extreme value (a NaN counts as extreme); over an empty axis they are refused when graphs are built.
COMBINERS = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")

# How a kernel is scheduled. loop: pointwise and row kernels. contraction: one sum of products, tiled and packed.
# serial: outer points run one after the other in order, so that stores may collide (scatter): later points
# see what earlier ones stored, and the first outer axes listed in `parallel` axes may still run apart. scan: one Scan. chain: two
# Products with work on rows between them. grid: Products that fill matrices, pointwise work on those, and Products that sum over
# their rows or columns.
KINDS = ("loop", "contraction", "serial", "scan", "chain", "grid")


@frozen
class Axis:
    """A loop variable: the symbol's name (beginning with `%`) and how many values it takes."""

    name: str
    extent: Dim


@frozen
class Buffer:
    """A dense row-major array that a kernel reads or writes."""

    name: str
    dtype: DType
    shape: Shape


@frozen
class Reduce:
    """`name` = `combiner` of `value` over all points of `axes`, at each outer point.

    The order of combination is fixed by the sizes alone, never by the number of threads.
    """

    name: str
    combiner: str
    axes: tuple[Axis, ...]
    value: Scalar


@frozen
class Store:
    """`buffer[indices] = value` at each outer point and each point of `axes`."""

    buffer: str
    indices: tuple[Index, ...]
    value: Scalar
    axes: tuple[Axis, ...] = ()


@frozen
class Scan(Store):
    """A store that walks its one axis in order: what is stored is `combiner` (as of a Reduce, no position) of the values at all
    points up to this one; with `exclusive` up to the one before, so that the identity comes first. Backwards is an index map.

    The order of combination is fixed by the sizes alone, never by the number of threads.
    """

    combiner: str = "sum"
    exclusive: bool = False


@frozen
class Product(Store):
    """A store of sums: `buffer[indices]` is the sum of `value` over all points of `over`, at each outer point and each of `axes`.

    The order of additions is fixed by the sizes alone, never by the number of threads.
    """

    over: tuple[Axis, ...] = ()


Statement = Union[Reduce, Store]


@frozen
class Kernel:
    """A loop nest as a value. Equal kernels are equal objects in the sense of `==` and are emitted once.

    Attributes:
        kind: one of KINDS.
        buffers: parameters in order; those stored to are outputs.
        dims: the size symbols the kernel uses, in order: its integer parameters.
        axes: the outer axes, slowest first.
        body: statements in order.
        parallel: serial kernels only: how many leading outer axes are independent after all.
        local: chain and grid kernels only: arrays that each outer point has for itself; no parameters.
    """

    kind: str
    buffers: tuple[Buffer, ...]
    dims: tuple[str, ...]
    axes: tuple[Axis, ...]
    body: tuple[Statement, ...]
    parallel: int = 0
    local: tuple[Buffer, ...] = ()

    def buffer(self, name: str) -> Buffer:
        """The parameter of that name."""
        return next(buffer for buffer in self.buffers if buffer.name == name)

    @property
    def outputs(self) -> frozenset[str]:
        """Names of the parameters the kernel stores to."""
        stored = frozenset(statement.buffer for statement in self.body if isinstance(statement, Store))
        return stored - {buffer.name for buffer in self.local}
