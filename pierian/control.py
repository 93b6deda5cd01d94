"""Control flow on tensors: `cond`, `while_loop`, `scan`, compiled as such in graphs and eagerly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pierian.compiler.graph.builder import current
from pierian.compiler.ops.control import build_cond, build_scan, build_while
from pierian.tensor import Tensor


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """What `true_fn()` gives where `pred` is true when the program runs, else what `false_fn()` gives.

    Both are traced and must give results of the same types. Differentiable.
    """
    return build_cond(current(), pred, true_fn, false_fn)


def while_loop(
    cond: Callable[..., Any],
    body: Callable[..., Any],
    loop_vars: Sequence[Any],
    maximum_iterations: int | None = None,
) -> list[Tensor]:
    """The loop variables after `body(*loop_vars)` was repeated while `cond(*loop_vars)` held.

    Every variable keeps its type. Differentiable: the gradient runs the loop three times more, one of more than 1024 steps more
    often, in the memory of 64 copies of the variables; with `maximum_iterations` it keeps what each step left.
    """
    made = build_while(current(), cond, body, list(loop_vars), maximum_iterations)
    return list(made) if isinstance(made, tuple) else [made]


def scan(
    fn: Callable[..., Any], init: Any, xs: Any, length: int | None = None, reverse: bool = False
) -> tuple[Any, Any]:
    """`fn(state, x) -> (state, y)` over the slices of `xs` along the first axis; the final state and the stacked `y`.

    `init`, `xs` and `y` may each be one tensor or a list of them; `xs` may be None with a `length`. Differentiable.
    """
    states = list(init) if isinstance(init, (list, tuple)) else [init]
    sequences = [] if xs is None else list(xs) if isinstance(xs, (list, tuple)) else [xs]
    form: dict[str, Any] = {}

    def step(*arguments: Any) -> list[Any]:
        state = list(arguments[: len(states)]) if isinstance(init, (list, tuple)) else arguments[0]
        slices = arguments[len(states) :]
        x = list(slices) if isinstance(xs, (list, tuple)) else slices[0] if slices else None
        following, y = fn(state, x)
        form["y"] = y
        results = [] if y is None else list(y) if isinstance(y, (list, tuple)) else [y]
        return [*(following if isinstance(following, (list, tuple)) else [following]), *results]

    made = build_scan(current(), step, states, sequences, length, reverse)
    flat = list(made) if isinstance(made, tuple) else [made]
    final, stacked = flat[: len(states)], flat[len(states) :]
    y = form["y"]
    return (
        final if isinstance(init, (list, tuple)) else final[0],
        None if y is None else stacked if isinstance(y, (list, tuple)) else stacked[0],
    )
