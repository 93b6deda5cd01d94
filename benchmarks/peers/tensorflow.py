"""TensorFlow: `tf.function` with and without XLA, and a graph with a Session as in TensorFlow 1."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from peers import threads


@functools.lru_cache(maxsize=1)
def setup() -> Any:
    """The package with its threads set; they can be set only once in a process."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads())
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def function(
    function: Callable[..., Any], inputs: dict[str, Any], xla: bool = False, constants: Sequence[str] = ()
) -> Callable[[], Any]:
    """A function of the package and tensors, traced once and called without the dispatch by signature."""
    tf = setup()
    tensors = {name: tf.constant(array) for name, array in inputs.items()}
    held = {name: tensors.pop(name) for name in constants}
    fed = list(tensors)

    @tf.function(jit_compile=xla, autograph=False)
    def traced(*arrays: Any) -> Any:
        return function(tf, **dict(zip(fed, arrays, strict=True)), **held)

    return concrete(traced, *tensors.values())


def concrete(traced: Any, *tensors: Any) -> Callable[[], Any]:
    """The call of a `tf.function` for these tensors, without dispatch by signature; it returns when the results are there."""
    call = traced.get_concrete_function(*tensors)
    return lambda: call(*tensors)


def training(
    loss_of: Callable[..., Any],
    parameters: dict[str, Any],
    inputs: Sequence[Any],
    update: Callable[[Any, Any, list[Any], Any], Any],
    slots: int,
    xla: bool,
    fed: bool = False,
) -> Callable[[], Any]:
    """A step as one `tf.function`: `loss_of(tf, variables by name, *inputs)`, its gradients, and for each variable
    `update(tf, variable, its slots, gradient)`; see `adam` and `momentum`. `fed` hands NumPy arrays over
    at each call, else tensors made once."""
    tf = setup()
    variables = {name: tf.Variable(array) for name, array in parameters.items()}
    held = {name: [tf.Variable(tf.zeros_like(v)) for _ in range(slots)] for name, v in variables.items()}
    powers = [tf.Variable(0.9), tf.Variable(0.999)]

    @tf.function(jit_compile=xla, autograph=False)
    def step(*arrays: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(tf, variables, *arrays)
        gradients = tape.gradient(loss, list(variables.values()))
        for (name, variable), gradient in zip(variables.items(), gradients, strict=True):
            update(tf, variable, [*held[name], *powers], gradient)
        for power, beta in zip(powers, (0.9, 0.999), strict=True):
            power.assign(power * beta)
        return loss

    if not fed:
        return concrete(step, *(tf.constant(array) for array in inputs))
    call = step.get_concrete_function(*(tf.TensorSpec(array.shape, array.dtype) for array in inputs))
    return lambda: call(*(tf.constant(array) for array in inputs))


def adam(rate: float) -> Any:
    """The fused update; two slots."""

    def update(tf: Any, variable: Any, slots: list[Any], gradient: Any) -> None:
        m, v, power1, power2 = slots
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=m.handle, v=v.handle, beta1_power=power1, beta2_power=power2, lr=rate, beta1=0.9,
            beta2=0.999, epsilon=1e-7, grad=gradient,
        )  # fmt: skip

    return update


def momentum(rate: float, momentum: float) -> Any:
    """The fused update; one slot."""

    def update(tf: Any, variable: Any, slots: list[Any], gradient: Any) -> None:
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle, accum=slots[0].handle, lr=rate, grad=gradient, momentum=momentum
        )

    return update


def descent(rate: float) -> Any:
    """The fused update; no slot."""

    def update(tf: Any, variable: Any, slots: list[Any], gradient: Any) -> None:
        tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)

    return update


def session(build: Callable[..., tuple[Any, Any]], inputs: dict[str, Any]) -> Callable[[], Any]:
    """TensorFlow 1: `build(tf.compat.v1, placeholders by name)` returns what to fetch and what to run beside it."""
    tf = setup().compat.v1
    graph = tf.Graph()
    with graph.as_default():
        fed = {name: tf.placeholder(array.dtype, array.shape) for name, array in inputs.items()}
        fetched, beside = build(tf, fed)
        start = tf.global_variables_initializer()
    options = tf.ConfigProto(intra_op_parallelism_threads=threads(), inter_op_parallelism_threads=1)
    session = tf.Session(graph=graph, config=options)
    session.run(start)
    call = session.make_callable([fetched, *beside], list(fed.values()))
    arrays = list(inputs.values())
    return lambda: call(*arrays)[0]
