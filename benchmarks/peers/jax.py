"""JAX: one jitted function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def setup(wide: bool = False) -> Any:
    """The package; `wide` for float64, which it otherwise computes in float32."""
    import jax

    jax.config.update("jax_enable_x64", wide)
    return jax


def function(function: Callable[..., Any], inputs: dict[str, Any], constants: Sequence[str] = ()) -> Callable[[], Any]:
    """A function of `jax.numpy` and arrays; those in `constants` are constants of the compiled program."""
    jax = setup(any(array.dtype == np.float64 for array in inputs.values()))
    arrays = {name: jax.numpy.asarray(array) for name, array in inputs.items()}
    held = {name: arrays.pop(name) for name in constants}
    compiled = jax.jit(lambda arrays: function(jax.numpy, **arrays, **held))

    def run() -> Any:
        return jax.block_until_ready(compiled(arrays))

    return run


def training(step: Callable[..., Any], state: Any, inputs: Sequence[Any] = ()) -> Callable[[], Any]:
    """A jitted `step(state, *inputs) -> (loss, state)`, which gives its old state up, called again and again."""
    jax = setup()
    compiled = jax.jit(step, donate_argnums=0)
    held = [state]

    def run() -> Any:
        loss, held[0] = compiled(held[0], *inputs)
        return jax.block_until_ready(loss)

    return run


def adam(loss_of: Callable[..., Any], parameters: Any, rate: float) -> tuple[Callable[..., Any], Any]:
    """A step `(state, *inputs) -> (loss, state)` of Adam, and the state to begin with."""
    jax = setup()
    jnp, over = jax.numpy, jax.tree.map

    def step(state: Any, *inputs: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p, *inputs)
        t = t + 1
        m = over(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = over(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        now = rate * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        p = over(lambda a, b, c: a - now * b / (jnp.sqrt(c) + 1e-7), p, m, v)
        return loss, (p, m, v, t)

    p = over(lambda one: jnp.array(one, copy=True), parameters)
    return step, (p, over(jnp.zeros_like, p), over(jnp.zeros_like, p), jnp.float32(0))


def momentum(
    loss_of: Callable[..., Any], parameters: Any, rate: float, momentum: float
) -> tuple[Callable[..., Any], Any]:
    """A step `(state, *inputs) -> (loss, state)` of gradient descent with momentum, and the state to begin with."""
    jax = setup()
    over = jax.tree.map

    def step(state: Any, *inputs: Any) -> Any:
        p, m = state
        loss, g = jax.value_and_grad(loss_of)(p, *inputs)
        m = over(lambda a, b: momentum * a + b, m, g) if momentum else m
        return loss, (over(lambda a, b: a - rate * b, p, m if momentum else g), m)

    p = over(lambda one: jax.numpy.array(one, copy=True), parameters)
    return step, (p, over(jax.numpy.zeros_like, p) if momentum else ())
