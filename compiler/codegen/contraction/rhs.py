"""First phase of a contraction: the right operand into panels, each once, in memory that all threads share.

A task is one part of some neighbouring panels, so that long pieces of each row are read at once. Panels that are read in place are
left out; the last one, if it is not full, is always packed.
"""

from __future__ import annotations

from pierian.compiler.codegen.abi import PHASE_PARAMETERS
from pierian.compiler.codegen.contraction.packing import pack_part
from pierian.compiler.codegen.contraction.parts import (
    outermost,
    panel_count,
    panel_elements,
    part_at,
    part_count,
    reads_rhs_in_place,
)
from pierian.compiler.codegen.evaluate import Frame, Scope, unravel
from pierian.compiler.codegen.transpose import emit_turn
from pierian.compiler.codegen.writer import FunctionWriter, Value, i64
from pierian.compiler.dim import Dim, ceildiv, product
from pierian.compiler.frozen import replace
from pierian.compiler.kernel.dependencies import Dependencies
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.schedule.contraction import Tiling
from pierian.compiler.schedule.roles import Roles

# Panels in one task of an operand that is contiguous along n, and products in one of any.
GROUP = 16
DEPTH = 128


def _thinner(tiling: Tiling) -> Tiling:
    """The same with parts of few products: where panels lie does not depend on how they are cut into tasks."""
    if tiling.sb > 1:
        return replace(tiling, sb=min(tiling.sb, max(2, DEPTH // tiling.kb)))
    return replace(tiling, kb=min(tiling.kb, DEPTH))


class RhsPacker:
    """Writes the function `name`."""

    def __init__(self, name: str, kernel: Kernel, roles: Roles, tiling: Tiling, isa: str, offset: Dim = 0) -> None:
        """`offset`: where in shared memory the panels begin, in bytes."""
        self.writer = FunctionWriter(name, "void", PHASE_PARAMETERS, isa=isa)
        self.frame = Frame(self.writer, kernel, tiling.lanes, Dependencies())
        self.roles = roles
        self.tiling = _thinner(tiling)
        self.offset = offset
        self.only_last = tiling.rhs_in_place == "always"
        self.group = GROUP if roles.columns_contiguous and not self.only_last else 1

    @property
    def tasks(self) -> Dim:
        """Zero where every panel is packed already, or by those who read it, or full and read in place."""
        n = self.roles.n.extent
        if self.roles.packed or self.tiling.rhs_in_place == "panel by panel":
            return 0
        if self.only_last and isinstance(n, int) and n % self.tiling.nr == 0:
            return 0
        groups: Dim = 1 if self.only_last else ceildiv(panel_count(self.roles, self.tiling), self.group)
        return product([axis.extent for axis in self.roles.rhs_batch]) * groups * part_count(self.roles, self.tiling)

    @property
    def elements(self) -> Dim:
        """Elements of all panels."""
        panels = panel_count(self.roles, self.tiling) * product([axis.extent for axis in self.roles.rhs_batch])
        return panels * panel_elements(self.roles, self.tiling) if self.tasks != 0 else 0

    def helpers(self) -> list[FunctionWriter]:
        """Functions that packing calls."""
        turns = (self.tasks != 0 or self.tiling.rhs_in_place == "panel by panel") and not self.roles.columns_contiguous
        return [emit_turn(self.roles.rhs.dtype, self.tiling.lanes)] if turns else []

    def emit(self) -> FunctionWriter:
        """The function."""
        w, r, t = self.writer, self.roles, self.tiling
        scope = self.outermost = outermost(self.frame, r, t)
        parts = scope.dim(part_count(r, t))
        panels = scope.dim(panel_count(r, t))
        groups = scope.dim(ceildiv(panel_count(r, t), self.group))
        columns = scope.dim(r.n.extent)
        in_place = reads_rhs_in_place(scope, r, t)
        self.panels = w.gep(self.frame.parameters.shared, "i8", scope.dim(self.offset))
        with w.loop(w.arg("begin"), w.arg("end")) as task:
            outer = w.op("sdiv", task.index, parts)
            part = w.sub(task.index, w.mul(outer, parts))
            if self.only_last:
                batch, panel = outer, w.sub(panels, i64(1))
            else:
                batch = w.op("sdiv", outer, groups)
                panel = w.mul(w.sub(outer, w.mul(batch, groups)), i64(self.group))
            first = w.mul(panel, i64(t.nr))
            width = w.minimum(w.sub(columns, first), i64(t.nr * self.group))
            if self.only_last or in_place is not None:  # only what is left behind full panels
                full = w.round_down(width, t.nr)
                skipped = full if in_place is None else w.select(in_place, full, i64(0))
                first, width = w.add(first, skipped), w.sub(width, skipped)
                panel = w.add(panel, w.op("sdiv", skipped, i64(t.nr)))
            place = w.mul(w.add(w.mul(batch, panels), panel), scope.dim(panel_elements(r, t)))
            self._pack(Scope(self.frame, scope, unravel(scope, batch, r.rhs_batch)), part, first, width, place)
        w.ret()
        return w

    def _pack(self, scope: Scope, index: Value, first: Value, width: Value, place: Value) -> None:
        w, r, t = self.writer, self.roles, self.tiling
        sizes = self.outermost
        part = part_at(sizes, r, t, index, i64(0), sizes.dim(part_count(r, t)))
        panel = w.gep(self.panels, r.rhs.dtype.llvm, w.add(place, w.mul(part.row, i64(t.nr))))
        pack_part(sizes, scope, r, part, (first, width), panel, t.nr, sizes.dim(panel_elements(r, t)))
