"""Serial kernels: stores that may collide (scatter), point after point in order.

Independent work is the vectors of the innermost axis: it is cut into stripes, one task each, and every stripe walks all points
in order. So each element sees its additions in the same order whatever the number of threads.
"""

from __future__ import annotations

from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.evaluate import Frame, Scope
from pierian.compiler.codegen.turns import whole_end
from pierian.compiler.codegen.writer import FunctionWriter, Value, i64
from pierian.compiler.dim import ceildiv, product
from pierian.compiler.elementary import expand
from pierian.compiler.frozen import replace
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Axis, Kernel, Store
from pierian.compiler.target.features import Target

# Elements of the innermost axis in one task.
STRIPE = 256


def emit_serial(kernel: Kernel, name: str, target: Target) -> KernelCode:
    """Native code of a serial kernel of one store."""
    (store,) = kernel.body
    assert isinstance(store, Store)
    roots = [store.value, *(index for index in store.indices if not isinstance(index, int) and hasattr(index, "op"))]
    expanded = expand(roots, target.isa)  # type: ignore[arg-type]
    mapping = dict(zip(roots, expanded, strict=True))
    store = replace(store, value=expanded[0], indices=tuple(mapping.get(i, i) for i in store.indices))  # type: ignore
    kernel = replace(kernel, body=(store,))
    bits = max((b.dtype.bits for b in kernel.buffers if b.dtype.is_float), default=32)
    lanes = target.lanes(bits) if store.axes else 1
    writer = FunctionWriter(f"{name}_f", "void", PHASE_PARAMETERS, isa=target.isa)
    frame = Frame(writer, kernel, lanes, Dependencies())
    _Walk(frame, store).write()
    writer.ret()
    tasks = ceildiv(store.axes[-1].extent, STRIPE) if store.axes else 1
    total = product([axis.extent for axis in (*kernel.axes, *store.axes)])
    serial = not store.axes or (isinstance(total, int) and total <= 4096)
    note = f"serial, {lanes} lanes, stripes of {STRIPE}" if store.axes else "serial, scalar"
    return KernelCode(
        writer.finish(), frozenset(writer.declarations), (Phase(f"{name}_f", tasks, serial),), schedule=(note,)
    )


class _Walk:
    def __init__(self, frame: Frame, store: Store) -> None:
        self.frame = frame
        self.store = store

    def write(self) -> None:
        writer = self.frame.writer
        scope = Scope(self.frame)
        if not self.store.axes:
            self._points(scope, list(self.frame.kernel.axes), i64(0), i64(1))
            return
        extent = scope.dim(self.store.axes[-1].extent)
        low = writer.mul(writer.arg("begin"), i64(STRIPE))
        high = writer.minimum(writer.mul(writer.arg("end"), i64(STRIPE)), extent)
        self._points(scope, list(self.frame.kernel.axes), low, high)

    def _points(self, scope: Scope, axes: list[Axis], low: Value, high: Value) -> None:
        if axes:
            with scope.writer.loop(i64(0), scope.dim(axes[0].extent)) as loop:
                self._points(Scope(self.frame, scope, {axes[0].name: loop.index}), axes[1:], low, high)
            return
        self._inner(scope, list(self.store.axes[:-1]), low, high)

    def _inner(self, scope: Scope, axes: list[Axis], low: Value, high: Value) -> None:
        if axes:
            with scope.writer.loop(i64(0), scope.dim(axes[0].extent)) as loop:
                self._inner(Scope(self.frame, scope, {axes[0].name: loop.index}), axes[1:], low, high)
            return
        if not self.store.axes:
            scope.store(self.store.buffer, self.store.indices, self.store.value)
            return
        writer, lanes = scope.writer, self.frame.lanes
        name = self.store.axes[-1].name
        computed = [index for index in self.store.indices if hasattr(index, "op")]
        scope.hoist([self.store.value, *computed], [name])  # type: ignore[list-item]
        middle = whole_end(writer, low, high, lanes)
        with writer.loop(low, middle, lanes) as loop:
            inside = Scope(self.frame, scope, {name: loop.index}, name)
            inside.store(self.store.buffer, self.store.indices, self.store.value)
        with writer.loop(middle, high, lanes) as loop:
            inside = Scope(self.frame, scope, {name: loop.index}, name)
            inside.mask = inside.tail_mask(loop.index, high)
            inside.store(self.store.buffer, self.store.indices, self.store.value)
