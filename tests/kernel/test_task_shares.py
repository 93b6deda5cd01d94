"""Into how many tasks pointwise work is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pierian.compiler.codegen.loops.plan import FEW_TASKS, even_share
from pierian.compiler.dim import symbol


@pytest.mark.parametrize(
    ("total", "tasks"), [(900, 1), (1000, 1), (1001, 2), (2500, 4), (3500, 4), (4096, 6), (16_500, 17)]
)
def test_few_tasks_are_even_in_number(total: int, tasks: int) -> None:
    assert -(-total // even_share(total, 1000)) == tasks


@given(st.integers(0, 1 << 24), st.integers(1, 1 << 16), st.sampled_from([1, 8, 16, 64]))
def test_shares(total: int, most: int, multiple: int) -> None:
    """They are multiples, no larger than asked for but for rounding up, and there are few more of them than there need be."""
    share = even_share(total, most, multiple)
    assert share >= 1 and share % multiple == 0
    assert share < most + multiple
    needed = -(-total // most)
    tasks = -(-total // share)
    assert tasks <= needed + (1 < needed < FEW_TASKS)


def test_open_totals_get_what_is_asked_for() -> None:
    assert even_share(symbol("n"), 1000, 16) == 1008
