"""Optimizers, with the formulas of Keras 2, eagerly and in graphs. Built from operators only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pierian.compiler.errors import ArgumentError, GradientError
from pierian.compiler.graph.builder import GraphBuilder, current
from pierian.eager import evaluate
from pierian.graph_mode import Group, gradients, is_building
from pierian.tape import GradientTape
from pierian.variable import TraceBuilder, Variable


class Optimizer:
    """Changes variables against their gradients.

    Args:
        learning_rate: the length of a step.
        name: prefix of the names of its variables.

    Subclasses say in `_update` what happens to one variable. All updates of a step are computed together: eagerly in one native
    call, in a graph as assignments that take effect at the end of the run.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, learning_rate: float, name: str) -> None:
        self.learning_rate = learning_rate
        self.name = name
        self._slots: dict[tuple[Any, Variable], dict[str, Variable]] = {}
        self._iterations: dict[Any, Variable] = {}

    def minimize(self, loss: Any, var_list: Sequence[Variable] | None = None, tape: GradientTape | None = None) -> Any:
        """One step against the gradient of a loss.

        Args:
            loss: eagerly a function without arguments (or a tensor with its `tape`); in a graph a tensor.
            var_list: the variables to change; in a graph by default all trainable ones it depends on.
            tape: the tape that recorded a loss tensor.

        Returns:
            In a graph the operation to run; eagerly the number of steps made.
        """
        if is_building() and not isinstance(current(), TraceBuilder):
            if callable(loss):
                loss = loss()
            if var_list is None:
                raise ArgumentError("minimize needs var_list in a graph")
            found = gradients(loss, list(var_list), unconnected_gradients="none")
            return self.apply_gradients(zip(found, var_list, strict=True))
        if callable(loss):
            with GradientTape() as tape:
                loss = loss()
        if tape is None or var_list is None:
            raise ArgumentError("minimize needs a function, or a tensor with its tape, and var_list")
        return self.apply_gradients(zip(tape.gradient(loss, list(var_list)), var_list, strict=True))

    def apply_gradients(self, grads_and_vars: Any) -> Any:
        """One step with given gradients, pairs of (gradient, variable); pairs without a gradient are left out.

        Raises:
            GradientError: no variable has a gradient.
        """
        pairs = [(gradient, variable) for gradient, variable in grads_and_vars if gradient is not None]
        if not pairs:
            raise GradientError("no gradient reaches any of the variables")
        builder = current()
        in_graph = isinstance(builder, GraphBuilder) and not isinstance(builder, TraceBuilder)
        place = builder.graph if in_graph else None  # type: ignore[attr-defined]
        iterations = self._iterations_of(place)
        step = builder.add(iterations, builder.constant(1, "int64"))
        updates: list[tuple[Variable, Any]] = [(iterations, step)]
        shared = self._shared(builder, step)
        for gradient, variable in pairs:
            slots = self._slots_of(place, variable)
            updates += self._update(builder, builder.as_value(gradient), variable, slots, shared)
        if in_graph:
            return Group([variable.assign(value) for variable, value in updates], f"{self.name}/step")
        if not isinstance(builder, TraceBuilder):
            evaluate([value for _, value in updates])
        for variable, value in updates:
            variable.assign(value)
        return iterations

    @property
    def iterations(self) -> Variable:
        """How many steps were made (eagerly)."""
        return self._iterations_of(None)

    def variables(self) -> list[Variable]:
        """The optimizer's own variables."""
        own = [slot for slots in self._slots.values() for slot in slots.values()]
        return [*self._iterations.values(), *own]

    def _iterations_of(self, place: Any) -> Variable:
        if place not in self._iterations:
            self._iterations[place] = Variable(np.int64(0), trainable=False, name=f"{self.name}/iterations")
        return self._iterations[place]

    def _slots_of(self, place: Any, variable: Variable) -> dict[str, Variable]:
        key = (place, variable)
        if key not in self._slots:
            shape, dtype = variable.type.shape, variable.dtype.numpy
            self._slots[key] = {
                slot: Variable(
                    np.full(shape, self._slot_start(slot), dtype), trainable=False,
                    name=f"{self.name}/{variable.name}/{slot}",
                )
                for slot in self.slots
            }  # fmt: skip
        return self._slots[key]

    def _slot_start(self, slot: str) -> float:
        return 0.0

    def _shared(self, b: Any, step: Any) -> Any:
        """What all variables need of a step."""
        return None

    def _update(
        self, b: Any, gradient: Any, variable: Variable, slots: dict[str, Variable], shared: Any
    ) -> list[tuple[Variable, Any]]:
        raise NotImplementedError(type(self).__name__)

    def _rate(self, b: Any, like: Any) -> Any:
        rate = self.learning_rate
        if callable(rate) and not isinstance(rate, Variable):
            rate = rate()
        return b.cast_to(b.as_value(rate), like.dtype)


class SGD(Optimizer):
    """Gradient descent: `v = momentum v - rate g; w += v`, with Nesterov's look-ahead if asked."""

    def __init__(
        self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False, name: str = "SGD"
    ) -> None:
        super().__init__(learning_rate, name)
        self.momentum = momentum
        self.nesterov = nesterov
        self.slots = ("momentum",) if momentum else ()

    def _update(
        self, b: Any, gradient: Any, variable: Variable, slots: dict[str, Variable], shared: Any
    ) -> list[tuple[Variable, Any]]:
        move = b.multiply(gradient, self._rate(b, gradient))
        if not self.momentum:
            return [(variable, b.subtract(variable, move))]
        slot = slots["momentum"]
        speed = b.subtract(b.multiply(slot, self.momentum), move)
        if self.nesterov:
            return [(slot, speed), (variable, b.subtract(b.add(variable, b.multiply(speed, self.momentum)), move))]
        return [(slot, speed), (variable, b.add(variable, speed))]


def _one_less_power(b: Any, beta: float, count: Any) -> Any:
    """1 - beta^count by the logarithm of beta, which is a constant: beta^count is near 1 in the first steps, and the difference
    would keep few of its digits."""
    logarithm = math.log(beta) if beta > 0 else -math.inf
    return b.negative(b.expm1(b.multiply(count, b.constant(logarithm, "float32"))))


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015) as in Keras 2: the bias correction is in the rate, epsilon is added to sqrt(v)."""

    slots = ("m", "v")
    weight_decay = 0.0

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "Adam",
    ) -> None:
        super().__init__(learning_rate, name)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def _shared(self, b: Any, step: Any) -> Any:
        count = b.cast(step, dtype="float32")
        return b.divide(b.sqrt(_one_less_power(b, self.beta_2, count)), _one_less_power(b, self.beta_1, count))

    def _update(
        self, b: Any, gradient: Any, variable: Variable, slots: dict[str, Variable], shared: Any
    ) -> list[tuple[Variable, Any]]:
        m, v = b.as_value(slots["m"]), b.as_value(slots["v"])
        correction = b.cast_to(shared, gradient.dtype)
        rate = b.multiply(self._rate(b, gradient), correction)
        m = b.add(m, b.multiply(b.subtract(gradient, m), 1 - self.beta_1))
        v = b.add(v, b.multiply(b.subtract(b.square(gradient), v), 1 - self.beta_2))
        value = b.as_value(variable)
        if self.weight_decay:
            value = b.subtract(value, b.multiply(value, b.multiply(self._rate(b, gradient), self.weight_decay)))
        value = b.subtract(value, b.divide(b.multiply(m, rate), b.add(b.sqrt(v), self.epsilon)))
        return [(slots["m"], m), (slots["v"], v), (variable, value)]


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(
        self,
        learning_rate: float = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "AdamW",
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name)
        self.weight_decay = weight_decay


class RMSprop(Optimizer):
    """RMSprop: steps divided by a running root mean square of the gradient."""

    def __init__(
        self,
        learning_rate: float = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        name: str = "RMSprop",
    ) -> None:
        super().__init__(learning_rate, name)
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered
        self.slots = ("rms", *(("momentum",) if momentum else ()), *(("mg",) if centered else ()))

    def _update(
        self, b: Any, gradient: Any, variable: Variable, slots: dict[str, Variable], shared: Any
    ) -> list[tuple[Variable, Any]]:
        rms = b.add(b.multiply(slots["rms"], self.rho), b.multiply(b.square(gradient), 1 - self.rho))
        updates: list[tuple[Variable, Any]] = [(slots["rms"], rms)]
        spread = rms
        if self.centered:
            mean = b.add(b.multiply(slots["mg"], self.rho), b.multiply(gradient, 1 - self.rho))
            updates.append((slots["mg"], mean))
            spread = b.subtract(rms, b.square(mean))
        move = b.divide(b.multiply(gradient, self._rate(b, gradient)), b.sqrt(b.add(spread, self.epsilon)))
        if self.momentum:
            move = b.add(b.multiply(slots["momentum"], self.momentum), move)
            updates.append((slots["momentum"], move))
        return [*updates, (variable, b.subtract(variable, move))]


class Adagrad(Optimizer):
    """Adagrad (Duchi et al., 2011): steps divided by the root of the sum of squared gradients."""

    slots = ("accumulator",)

    def __init__(
        self,
        learning_rate: float = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        name: str = "Adagrad",
    ) -> None:
        super().__init__(learning_rate, name)
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon

    def _slot_start(self, slot: str) -> float:
        return self.initial_accumulator_value

    def _update(
        self, b: Any, gradient: Any, variable: Variable, slots: dict[str, Variable], shared: Any
    ) -> list[tuple[Variable, Any]]:
        total = b.add(slots["accumulator"], b.square(gradient))
        move = b.divide(b.multiply(gradient, self._rate(b, gradient)), b.add(b.sqrt(total), self.epsilon))
        return [(slots["accumulator"], total), (variable, b.subtract(variable, move))]


__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]
