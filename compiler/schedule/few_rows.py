"""Products of few rows or few columns: memory sets their pace, and the larger operand is read once where it lies."""

from __future__ import annotations

from pierian.compiler.frozen import replace
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.schedule.dots import Dots, choose_dots, guess, tiled_time
from pierian.compiler.schedule.roles import Roles
from pierian.compiler.schedule.streams import Stream, choose_stream
from pierian.compiler.target.features import Target


def choose_few_rows(kernel: Kernel, roles: Roles, target: Target) -> list[tuple[Roles, Stream | Dots]]:
    """How such a product is computed, and the roles it has then: those of rows and columns may be exchanged. Empty for others. With
    open sizes there may be several ways, of which a run takes the first that pays (see `pays`), and if none does, that of others."""
    tiled = tiled_time(roles, target)
    m, n = guess(roles.m.extent), guess(roles.n.extent)
    times = (lambda rows: tiled(rows, n), lambda columns: tiled(m, columns))
    found: list[tuple[Roles, Stream | Dots]] = []
    for turned, time in zip((roles, exchanged(roles)), times, strict=True):
        way = choose_stream(turned, target) or choose_dots(kernel, turned, target, time)
        if way is not None:
            found.append((turned, way))
            if way.pays(turned) == 1:
                break
    return found


def exchanged(roles: Roles) -> Roles:
    """The same product with rows and columns, and so the operands, in each other's place."""
    rhs_step = roles.lhs_steps[1] if roles.lhs_steps is not None and roles.lhs_steps[0] == 1 else None
    return replace(
        roles, lhs=roles.rhs, rhs=roles.lhs, m=roles.n, n=roles.m, rows_contiguous=not roles.columns_contiguous,
        columns_contiguous=not roles.rows_contiguous, lhs_steps=None, rhs_step=rhs_step, rhs_batch=roles.batch,
    )  # fmt: skip
