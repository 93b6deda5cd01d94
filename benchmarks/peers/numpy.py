"""NumPy, as written by hand; Numba, kernels by hand, is called the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from peers import threads


def function(function: Callable[..., Any], inputs: dict[str, Any]) -> Callable[[], Any]:
    arrays = list(inputs.values())
    return lambda: function(np, *arrays)


def compiled(function: Callable[..., Any], inputs: dict[str, Any], parallel: bool = True) -> Callable[[], Any]:
    """`function(*arrays)` compiled by Numba; its `numba.prange` loops run on several threads if there are several."""
    import numba

    numba.set_num_threads(threads())
    call = numba.njit(parallel=parallel and threads() > 1, fastmath=True)(function)
    arrays = list(inputs.values())
    return lambda: call(*arrays)


class Adam:
    """Kingma and Ba's optimizer on arrays, in place, in their own element type."""

    def __init__(self, parameters: Sequence[Any], rate: float) -> None:
        self._parameters, self._rate, self._step = parameters, rate, 0
        self._slots = [(np.zeros_like(one), np.zeros_like(one)) for one in parameters]

    def apply(self, gradients: Sequence[Any]) -> None:
        self._step += 1
        rate = self._rate * (1 - 0.999**self._step) ** 0.5 / (1 - 0.9**self._step)
        for p, (m, v), g in zip(self._parameters, self._slots, gradients, strict=True):
            m += (g - m) * p.dtype.type(0.1)
            v += (g * g - v) * p.dtype.type(0.001)
            p -= p.dtype.type(rate) * m / (np.sqrt(v) + p.dtype.type(1e-7))


def cross_entropy(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Mean softmax cross-entropy of [rows, classes] and its gradient."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(1, keepdims=True)
    loss = np.mean(np.log(total[:, 0]) - shifted[rows, labels])
    gradient = e / total
    gradient[rows, labels] -= 1
    return loss, gradient / logits.dtype.type(len(labels))
