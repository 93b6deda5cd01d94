"""Losses: compositions. Those over examples give one value for each example, averaged over the last axis as Keras does."""

from __future__ import annotations

from typing import Any

from pierian.compiler.dtype import int32, int64
from pierian.compiler.errors import DTypeError, ShapeError
from pierian.compiler.graph.node import Node, Value
from pierian.compiler.ops import rules
from pierian.compiler.ops.definition import Tensor, operator
from pierian.compiler.ops.reduction import exponentials
from pierian.compiler.shape import TensorType

# Keras keeps probabilities this far from 0 and 1.
EPSILON = 1e-7


def _over_last(first: TensorType, second: TensorType, **_: Any) -> TensorType:
    both = rules.broadcast(first, second)
    if both.rank == 0:
        raise ShapeError("a loss needs at least one axis", got=f"{first}, {second}")
    return TensorType(both.dtype, both.shape[:-1])


@operator(promote="float", infer=_over_last)
def mean_squared_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Mean over the last axis of the squared difference."""


@mean_squared_error.expand
def _mse_expand(b: Any, y_true: Value, y_pred: Value) -> Value:
    return b.mean(b.square(b.subtract(y_pred, y_true)), axis=-1)


@operator(promote="float", infer=_over_last)
def mean_absolute_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Mean over the last axis of the absolute difference."""


@mean_absolute_error.expand
def _mae_expand(b: Any, y_true: Value, y_pred: Value) -> Value:
    return b.mean(b.abs(b.subtract(y_pred, y_true)), axis=-1)


@operator(promote="float", infer=_over_last)
def huber(y_true: Tensor, y_pred: Tensor, delta: float = 1.0) -> Tensor:
    """Mean over the last axis of half the squared difference up to `delta`, and linear beyond."""


@huber.expand
def _huber_expand(b: Any, y_true: Value, y_pred: Value, delta: float) -> Value:
    error = b.abs(b.subtract(y_pred, y_true))
    limit = b.constant_like(delta, error)
    quadratic = b.multiply(b.square(error), b.constant_like(0.5, error))
    linear = b.multiply(limit, b.subtract(error, b.constant_like(0.5 * delta, error)))
    return b.mean(b.where(b.less_equal(error, limit), quadratic, linear), axis=-1)


@operator(promote="float", infer=_over_last)
def binary_crossentropy(y_true: Tensor, y_pred: Tensor, from_logits: bool = False) -> Tensor:
    """Mean over the last axis of the cross-entropy of independent yes/no labels and probabilities (or logits)."""


@binary_crossentropy.expand
def _binary_expand(b: Any, y_true: Value, y_pred: Value, from_logits: bool) -> Value:
    one = b.constant_like(1, y_pred)
    if from_logits:
        return b.mean(b.subtract(b.softplus(y_pred), b.multiply(y_true, y_pred)), axis=-1)
    p = b.clip(y_pred, b.constant_like(EPSILON, y_pred), b.constant_like(1 - EPSILON, y_pred))
    hit = b.multiply(y_true, b.log(p))
    miss = b.multiply(b.subtract(one, y_true), b.log(b.subtract(one, p)))
    return b.negative(b.mean(b.add(hit, miss), axis=-1))


@operator(promote="float", infer=_over_last)
def categorical_crossentropy(y_true: Tensor, y_pred: Tensor, from_logits: bool = False) -> Tensor:
    """Cross-entropy along the last axis of a distribution and probabilities (or logits)."""


@categorical_crossentropy.expand
def _categorical_expand(b: Any, y_true: Value, y_pred: Value, from_logits: bool) -> Value:
    if from_logits:
        return b.negative(b.sum(b.multiply(y_true, b.log_softmax(y_pred)), axis=-1))
    p = b.divide(y_pred, b.sum(y_pred, axis=-1, keepdims=True))
    p = b.clip(p, b.constant_like(EPSILON, p), b.constant_like(1 - EPSILON, p))
    return b.negative(b.sum(b.multiply(y_true, b.log(p)), axis=-1))


@operator()
def sparse_softmax_cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy along the last axis of `logits` with the class that each integer of `labels` names."""


@sparse_softmax_cross_entropy.infer
def _sparse_infer(labels: TensorType, logits: TensorType) -> TensorType:
    if labels.dtype not in (int32, int64):
        raise DTypeError("labels must be integers", got=labels, expected="int32 or int64")
    if not logits.dtype.is_float:
        raise DTypeError("logits must be floats", got=logits)
    if labels.rank != logits.rank - 1:
        raise ShapeError("labels must have one axis less than logits", got=f"{labels} and {logits}")
    return TensorType(logits.dtype, logits.shape[:-1])


@sparse_softmax_cross_entropy.constraints
def _sparse_constraints(labels: TensorType, logits: TensorType) -> list[Any]:
    return list(zip(labels.shape, logits.shape[:-1], strict=True))


def _chosen(b: Any, labels: Value, logits: Value) -> Value:
    """1 at each label's class, else 0."""
    return b.one_hot(labels, depth=logits.shape[-1], dtype=logits.dtype)


@sparse_softmax_cross_entropy.gradient
def _sparse_gradient(b: Any, node: Node, dz: Value) -> tuple[Value | None, ...]:
    labels, logits = node.inputs
    _, grown, total = exponentials(b, logits, (logits.type.rank - 1,))  # shared with the loss
    probability = b.multiply(grown, b.divide(b.constant_like(1, total), total))
    difference = b.subtract(probability, _chosen(b, labels, logits))
    return None, b.multiply(difference, b.expand_dims(dz, axis=dz.type.rank))


@sparse_softmax_cross_entropy.expand
def _sparse_expand(b: Any, labels: Value, logits: Value) -> Value:
    picked = b.sum(b.multiply(_chosen(b, labels, logits), logits), axis=-1)
    return b.subtract(b.logsumexp(logits, axis=-1), picked)


@operator(promote="float", infer=_over_last)
def softmax_cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy along the last axis of a distribution `labels` and the softmax of `logits`."""


@softmax_cross_entropy.expand
def _softmax_expand(b: Any, labels: Value, logits: Value) -> Value:
    return b.negative(b.sum(b.multiply(labels, b.log_softmax(logits)), axis=-1))


@operator()
def sparse_categorical_crossentropy(y_true: Tensor, y_pred: Tensor, from_logits: bool = False) -> Tensor:
    """Cross-entropy of integer classes and probabilities (or logits) along the last axis."""


@sparse_categorical_crossentropy.infer
def _sparse_categorical_infer(y_true: TensorType, y_pred: TensorType, from_logits: bool) -> TensorType:
    return _sparse_infer(y_true, y_pred)


@sparse_categorical_crossentropy.expand
def _sparse_categorical_expand(b: Any, y_true: Value, y_pred: Value, from_logits: bool) -> Value:
    if from_logits:
        return b.sparse_softmax_cross_entropy(y_true, y_pred)
    return b.categorical_crossentropy(_chosen(b, y_true, y_pred), y_pred)


for _op in (mean_squared_error, mean_absolute_error, huber, softmax_cross_entropy):
    _op.samples = [("f32[4,3] f32[4,3]", {}), ("f64[5] f64[5]", {})]
binary_crossentropy.samples = [("u32[4,3] u32[4,3]", {}), ("u64[4,3] f64[4,3]", {"from_logits": True})]
categorical_crossentropy.samples = [("u32[4,3] u32[4,3]", {}), ("u64[4,3] f64[4,3]", {"from_logits": True})]
sparse_softmax_cross_entropy.samples = [("i32[4] f32[4,3]", {}), ("i64[2,3] f64[2,3,5]", {})]
sparse_categorical_crossentropy.samples = [("i32[4] u32[4,3]", {}), ("i64[4] f64[4,3]", {"from_logits": True})]
