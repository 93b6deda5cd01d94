"""The gradient tape: records what is computed, eagerly or while a function is traced, and differentiates it."""

from __future__ import annotations

from typing import Any

from pierian.compiler.autodiff.reverse import gradients
from pierian.compiler.errors import GradientError
from pierian.compiler.graph.builder import current, recorders
from pierian.compiler.graph.node import Node, Value
from pierian.tensor import Tensor


class GradientTape:
    """Records operations on watched tensors so that they can be differentiated.

    Args:
        persistent: whether `gradient` may be called more than once.
        watch_accessed_variables: whether trainable variables are watched when they are read.

    Tapes nest: a tape records the gradient computations of tapes inside it, for derivatives of higher order.

    >>> x = Variable(3.0)
    >>> with GradientTape() as tape:
    ...     y = x * x
    >>> tape.gradient(y, x).numpy()
    6.0
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        self._persistent = persistent
        self._watch_variables = watch_accessed_variables
        self._producers: dict[Value, Node | None] = {}
        self._variables: dict[Any, list[Tensor]] = {}
        self._recording = False
        self._used = False

    def __enter__(self) -> GradientTape:
        if self._recording:
            raise GradientError("this tape is recording already")
        recorders().append(self)
        self._recording = True
        return self

    def __exit__(self, *_: object) -> None:
        recorders().remove(self)
        self._recording = False

    def watch(self, tensor: Any) -> None:
        """Record what is computed from a tensor or variable (or a list of them) from now on."""
        for item in tensor if isinstance(tensor, (list, tuple)) else [tensor]:
            value = current().as_value(item)
            if isinstance(item, Tensor):
                self._producers.setdefault(value, None)
            else:
                self._note(item, value)

    def record(self, node: Node) -> None:
        """Called for every operation."""
        if any(value in self._producers for value in node.inputs):
            for value in node.outputs:
                self._producers[value] = node

    def read(self, variable: Any, tensor: Tensor) -> None:
        """Called when a variable is read."""
        if self._watch_variables and variable.trainable:
            self._note(variable, tensor)

    def _note(self, variable: Any, tensor: Tensor) -> None:
        known = self._variables.setdefault(variable, [])
        if not any(tensor is one for one in known):
            known.append(tensor)
            self._producers.setdefault(tensor, None)

    def gradient(
        self, target: Any, sources: Any, output_gradients: Any = None, unconnected_gradients: str = "none"
    ) -> Any:
        """The gradient of `target` (or the sum of several) with respect to `sources`, in the structure of `sources`.

        Where the target does not depend on a source the gradient is None, or zeros with `unconnected_gradients="zero"`.

        Raises:
            GradientError: a tape that is not persistent was used before.
        """
        if self._used and not self._persistent:
            raise GradientError("a tape gives gradients once", advice="make it with GradientTape(persistent=True)")
        self._used = True
        targets = [current().as_value(t) for t in (target if isinstance(target, (list, tuple)) else [target])]
        starts = None
        if output_gradients is not None:
            given = output_gradients if isinstance(output_gradients, (list, tuple)) else [output_gradients]
            starts = [None if g is None else current().as_value(g) for g in given]
        flat = _flatten(sources)
        with _Paused(self):
            found = self._differentiate(targets, flat, starts, unconnected_gradients)
        if not self._persistent:
            self._producers = {}
            self._variables = {}
        return _unflatten(sources, iter(found))

    def _differentiate(self, targets: list[Any], sources: list[Any], starts: Any, unconnected: str) -> list[Any]:
        b = current()
        groups = [[b.as_value(s)] if isinstance(s, Tensor) else self._variables.get(s, []) for s in sources]
        wanted = list(dict.fromkeys(tensor for tensors in groups for tensor in tensors))
        floats = [y for y in targets if y.dtype.is_float]
        if starts is not None:
            starts = [g for g, y in zip(starts, targets, strict=True) if y.dtype.is_float]
        differentiable = [x for x in wanted if x.dtype.is_float]
        values = gradients(b, floats, differentiable, starts, "none", self._producers.get)
        by_tensor = dict(zip(differentiable, values, strict=True))
        results = []
        for source, tensors in zip(sources, groups, strict=True):
            parts = [by_tensor.get(tensor) for tensor in tensors]
            total = None
            for part in parts:
                if part is not None:
                    total = part if total is None else b.add(total, part)
            if total is None and unconnected.lower() == "zero":
                total = b.zeros_like(b.as_value(source))
            results.append(total)
        return results


class _Paused:
    """A tape does not record its own gradients; tapes around it do."""

    def __init__(self, tape: GradientTape) -> None:
        self.tape = tape
        self.place = -1

    def __enter__(self) -> None:
        tapes = recorders()
        if self.tape in tapes and not self.tape._persistent:
            self.place = tapes.index(self.tape)
            tapes.remove(self.tape)

    def __exit__(self, *_: object) -> None:
        if self.place >= 0:
            recorders().insert(self.place, self.tape)


def _flatten(structure: Any) -> list[Any]:
    if isinstance(structure, dict):
        return [leaf for value in structure.values() for leaf in _flatten(value)]
    if isinstance(structure, (list, tuple)):
        return [leaf for value in structure for leaf in _flatten(value)]
    return [structure]


def _unflatten(structure: Any, results: Any) -> Any:
    if isinstance(structure, dict):
        return {key: _unflatten(value, results) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)(_unflatten(value, results) for value in structure)
    return next(results)
