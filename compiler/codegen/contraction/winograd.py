"""Convolutions by Winograd's minimal filtering (see `pierian.compiler.schedule.winograd`).

Up to three phases: filters are transformed into panels (unless they lie there already), the input is transformed for all tasks
(unless each does that for its own tiles), and tasks multiply a block of tiles by panels of filters, panel after panel, transforming
the sums back while they are in the nearest caches.
"""

from __future__ import annotations

from pierian.compiler.codegen.abi import PHASE_PARAMETERS, KernelCode, Phase
from pierian.compiler.codegen.contraction.microkernel import MicroShape, ahead_bytes, emit_microkernel, micro_name
from pierian.compiler.codegen.contraction.parts import each
from pierian.compiler.codegen.contraction.small import SMALL_WORK, is_at_most
from pierian.compiler.codegen.contraction.transforms import FilterTransform, InputTransform, OutputTransform
from pierian.compiler.codegen.evaluate import Frame, Scope
from pierian.compiler.codegen.writer import FALSE, NULL, FunctionWriter, Value, i64
from pierian.compiler.dim import Dim, ceildiv
from pierian.compiler.elementary import expand_kernel
from pierian.compiler.frozen import replace
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Kernel, Reduce
from pierian.compiler.kernel.scalar import load_parts, postorder
from pierian.compiler.schedule.winograd import PLANES, Winograd
from pierian.compiler.target.features import Target


def emit_winograd(kernel: Kernel, name: str, plan: Winograd, target: Target) -> KernelCode:
    """Native code of a convolution that `plan` was made for."""
    kernel = expand_kernel(kernel, target.isa)
    reduce = next(statement for statement in kernel.body if isinstance(statement, Reduce))
    plan = replace(plan, reduce=reduce, lhs=reduce.value.args[0], rhs=reduce.value.args[1])
    emitter = _Emitter(kernel, name, plan, target, is_at_most(plan.multiplications, SMALL_WORK))
    if not plan.packed:
        emitter.transform_filters()
    if plan.once:
        emitter.transform_input()
    emitter.multiply()
    return emitter.code()


class _Emitter:
    """Collects the phases and functions of one kernel."""

    def __init__(self, kernel: Kernel, name: str, plan: Winograd, target: Target, small: bool) -> None:
        self.kernel = kernel
        self.name = name
        self.plan = plan
        self.target = target
        self.small = small
        self.dtype = plan.reduce.value.dtype
        self.micro = MicroShape(plan.mr, plan.nr, plan.lanes, plan.row, 1, False, plan.ahead)
        self.phases: list[Phase] = []
        self.functions: list[FunctionWriter] = []
        self.helpers: list[FunctionWriter] = [emit_microkernel(self.dtype, self.micro)]

    def code(self) -> KernelCode:
        """Everything together."""
        p, size = self.plan, self.dtype.itemsize
        shared: Dim = 0 if p.packed else p.filters
        if p.once:
            shared = shared + ceildiv(p.tiles, p.mb) * self._block_elements()
        return KernelCode.of(self.functions, self.phases, self._note(), shared * size, self._scratch(), self.helpers)

    def _note(self) -> str:
        p = self.plan
        filters = "a packed constant" if p.packed else "transformed in every run"
        return (
            f"winograd 2 x 2 over {p.tiles} tiles x {p.outputs.extent} x {p.depth}, {PLANES} products for 36, predicted "
            f"{p.share:.2f} of the direct sums' time, tile {p.mr} x {p.nr}, block {p.mb}, input transformed "
            f"{'once' if p.once else 'by each task'}, filters {filters}"
        )

    def _begin(self, suffix: str) -> tuple[Frame, Scope]:
        """A new function, and its outermost scope, where all sizes are known."""
        p = self.plan
        writer = FunctionWriter(f"{self.name}_{suffix}", "void", PHASE_PARAMETERS, isa=self.target.isa)
        self.functions.append(writer)
        frame = Frame(writer, self.kernel, p.lanes, Dependencies())
        scope = Scope(frame)
        axes = (*p.points, p.height, p.width, p.rows, p.columns, p.outputs)
        for size in (*(axis.extent for axis in axes), p.tiles, p.panels, ceildiv(p.tiles, p.mb), p.filters):
            scope.dim(size)
        return frame, scope

    # --- transforms before ---------------------------------------------------------------------------------------

    def transform_filters(self) -> None:
        """The phase that writes the panels [outputs / nr, 4, 4, channels, nr]."""
        frame, scope = self._begin("w")
        transform = FilterTransform(frame, self.plan)
        transform.emit(scope)
        self.helpers += transform.helpers()
        self.phases.append(Phase(f"{self.name}_w", transform.tasks, self.small))

    def transform_input(self) -> None:
        """The phase that writes blocks [4, 4, mb, row]; a task is as many tiles as one of registers has rows."""
        p = self.plan
        frame, scope = self._begin("x")
        w = frame.writer
        transform = InputTransform(frame, p)
        total = scope.dim(p.tiles)
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            first = w.mul(task.index, i64(p.mr))
            count = w.minimum(w.sub(total, first), i64(p.mr))
            block = w.op("sdiv", first, i64(p.mb))
            row = w.sub(first, w.mul(block, i64(p.mb)))
            transform.emit(
                scope, first, count, w.gep(self._block(scope, block), self.dtype.llvm, w.mul(row, i64(p.row)))
            )
        w.ret()
        self.phases.append(Phase(f"{self.name}_x", ceildiv(p.tiles, p.mr), self.small))

    def _block_elements(self) -> int:
        """Elements of a block of transformed input."""
        return PLANES * self.plan.mb * self.plan.row

    def _block(self, scope: Scope, block: Value) -> Value:
        """Where a block that all tasks read lies in shared memory: behind the filters."""
        w = scope.writer
        before = i64(0) if self.plan.packed else scope.dim(self.plan.filters)
        at = w.add(before, w.mul(block, i64(self._block_elements())))
        return w.gep(scope.frame.parameters.shared, self.dtype.llvm, at)

    # --- products --------------------------------------------------------------------------------------------------

    def _places(self) -> tuple[int, int]:
        """Where in scratch memory sums and results lie, in bytes; a task's own input comes first."""
        size = self.dtype.itemsize
        sums = 0 if self.plan.once else _aligned(self._block_elements() * size)
        return sums, sums + _aligned(PLANES * self.plan.mb * self.plan.nr * size)

    def _scratch(self) -> int:
        return self._places()[1] + OutputTransform.waiting(self.plan) * self.dtype.itemsize

    def multiply(self) -> None:
        """The phase of products and results."""
        p = self.plan
        frame, scope = self._begin("f")
        w, scratch = frame.writer, frame.writer.arg("scratch")
        at_sums, at_results = self._places()
        sums, waiting = (w.gep(scratch, "i8", i64(at)) for at in (at_sums, at_results))
        output = OutputTransform(frame, self.kernel, p, waiting)
        blocks, total = scope.dim(ceildiv(p.tiles, p.mb)), scope.dim(p.tiles)
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            block, panels = task.index, scope.dim(p.panels)
            first_panel = i64(0)
            if p.once:  # neighbouring tasks share filters
                first_panel = w.op("sdiv", task.index, blocks)
                block, panels = w.sub(task.index, w.mul(first_panel, blocks)), i64(1)
            first = w.mul(block, i64(p.mb))
            count = w.minimum(w.sub(total, first), i64(p.mb))
            if p.once:
                values = self._block(scope, block)
            else:
                values = scratch
                InputTransform(frame, p).emit(scope, first, count, values)
            with each(scope, panels) as index:
                panel = w.add(first_panel, index)
                self._panel(frame, values, panel, count, sums)
                output.emit(scope, first, count, w.mul(panel, i64(p.nr)), sums)
        w.ret()
        tasks = ceildiv(p.tiles, p.mb)
        self.phases.append(Phase(f"{self.name}_f", tasks * p.panels if p.once else tasks, self.small))

    def _panel(self, frame: Frame, values: Value, panel: Value, count: Value, sums: Value) -> None:
        """All products of a block of tiles with a panel: sums [4, 4, mb, nr]."""
        w, p, element = frame.writer, self.plan, self.dtype.llvm
        filters = frame.parameters.shared
        if p.packed:
            name = next(load_parts(node)[0] for node in postorder([p.rhs]) if node.op == "load")
            filters = frame.parameters.buffers[name]
        plane = p.depth * p.nr
        with w.loop(i64(0), i64(PLANES)) as product:
            number = w.add(w.mul(panel, i64(PLANES)), product.index)
            rhs = w.gep(filters, element, w.mul(number, i64(plane)))
            following = w.gep(rhs, element, i64(plane)) if p.ahead else NULL
            top = w.mul(product.index, i64(p.mb))
            with w.loop(i64(0), count, p.mr) as row:
                at = w.add(top, row.index)
                lhs = w.gep(values, element, w.mul(at, i64(p.row)))
                target = w.gep(sums, element, w.mul(at, i64(p.nr)))
                ahead = following
                if p.ahead:  # the tiles of a block share the next plane out
                    turn = w.op("sdiv", row.index, i64(p.mr))
                    ahead = w.gep(following, "i8", w.mul(turn, i64(p.depth * ahead_bytes(self.micro))))
                w.call(
                    micro_name(self.dtype, self.micro), "void",
                    [lhs, rhs, i64(p.nr), i64(p.depth), i64(p.chain), target, FALSE, target, i64(p.nr), ahead, NULL, i64(1)],
                )  # fmt: skip


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
