"""What a loop carries from one turn to the next: over the old value where the body allows it, else copied at the body's end."""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.kernel.program import Copy, Launch, Program, Step
from pierian.compiler.lowering.in_place import Access, Update, step_overwrites, store_late


def carry(program: Program, body: list[Step], pairs: Sequence[tuple[str, str]]) -> list[Step]:
    """The steps of a body with the ends of a turn: `pairs` are the buffers of the loop's state, each with that of its next value.

    A next value lies in its state's own memory, as an alias, where nothing reads the state any more when it is written.
    """
    store_late(body, [Update(following, state) for state, following in pairs])
    copies: list[Step] = []
    for state, following in pairs:
        if _may_go_over(program, body, state, following):
            buffer = program.buffers[following]
            buffer.kind, buffer.base = "alias", state
            body = [step for step in body if step != Copy(following, state)]  # a value that no turn changes
        else:
            copies.append(Copy(state, following))
    return [*body, *copies]


def _may_go_over(program: Program, body: Sequence[Step], state: str, following: str) -> bool:
    kinds = program.buffers[state].kind, program.buffers[following].kind
    if kinds not in (("temporary", "temporary"), ("output", "temporary")):
        return False
    written = False
    for step in body:
        found = Access.of(program, step)
        touches = state in found.reads or state in found.writes
        if written and touches:
            return False
        if following in found.reads or following in found.writes:
            if not written and not isinstance(step, (Launch, Copy)):
                return False
            if not written and touches and not step_overwrites(program, step, state, following):
                return False
            written = True
    return written
