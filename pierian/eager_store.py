"""Variables made eagerly as the calls of a traced function find them: read, and written in place where nobody else holds the value.

What such a variable is, is a tensor; whoever reads it holds that tensor or its array. A run that assigns takes the tensors out of
their variables, so that readers wait, and then counts. Where the variable alone held a tensor, that alone its array, and the array
has never been handed out (it is writeable still), the new value may go over the old one; else there is a new tensor for it. See
docs/notes/001-in-place-variables.md.
"""

from __future__ import annotations

import operator
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from pierian.compiler.dtype import float64
from pierian.compiler.shape import TensorType
from pierian.eager import Array, computed
from pierian.runtime.memory import COUNTS_REFERENCES
from pierian.runtime.results import ResultMemory
from pierian.runtime.variables import Access
from pierian.tensor import Tensor
from pierian.variable import ASSIGNING, Variable


def _holders(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """The references to each tensor and to its array."""
    arrays = map(operator.attrgetter("data"), tensors)
    return list(zip(map(sys.getrefcount, tensors), map(sys.getrefcount, arrays), strict=True))


(_ALONE,) = _holders([computed(np.empty(1), TensorType(float64, (1,)))])


class EagerStore:
    """The variables of a traced function, by the names it has for them (see `pierian.runtime.variables.Store`).

    Runs that assign hold `lock`, one for all functions: no two of them write at once.
    """

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = dict(variables)
        self._taken: tuple[list[Variable], list[Tensor]] = [], []
        self._memory = ResultMemory()
        self._makers: dict[str, Callable[[], Array]] = {}
        self.lock = ASSIGNING

    def values(self, names: Iterable[str]) -> list[Array]:
        with ASSIGNING:
            return [_array(self._variables[name].eager_value()) for name in names]

    def begin(self, access: Access) -> tuple[Sequence[Array], Sequence[Array], Callable[[], Any] | None]:
        variables = [self._variables[name] for name in access.assigns]
        tensors = [variable.eager_value() for variable in variables]
        self._taken = variables, tensors
        _set_all(variables, repeat(None))
        alone = [count == _ALONE and COUNTS_REFERENCES for count in _holders(tensors)]
        following = [
            tensor if allowed and free and _array(tensor).flags.writeable else self._new(name, tensor)
            for name, tensor, allowed, free in zip(access.assigns, tensors, access.in_place, alone, strict=True)
        ]
        old = dict(zip(access.assigns, tensors, strict=True))
        reads = [_array(old[name] if name in old else self._variables[name].eager_value()) for name in access.reads]
        same = all(map(operator.is_, following, tensors))
        commit = None if same else partial(setattr, self, "_taken", (variables, following))
        return reads, [_array(tensor) for tensor in following], commit

    def end(self) -> None:
        _set_all(*self._taken)
        self._taken = [], []

    def _new(self, name: str, like: Tensor) -> Tensor:
        """A tensor of the type of another, not initialized."""
        if name not in self._makers:
            self._makers[name] = self._memory.maker(_array(like).shape, like.dtype.numpy)
        return computed(self._makers[name](), like.type)


def _array(tensor: Tensor) -> Array:
    assert tensor.data is not None
    return tensor.data


def _set_all(variables: Iterable[Variable], tensors: Iterable[Tensor | None]) -> None:
    """Give variables their tensors, all or none: no handler of a signal runs in between."""
    deque(map(setattr, variables, repeat("_tensor"), tensors), maxlen=0)
