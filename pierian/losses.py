"""Losses as functions of labels and predictions, and as objects with a reduction over examples, in Keras's manner."""

from __future__ import annotations

from typing import Any

from pierian.compiler.errors import ArgumentError
from pierian.compiler.graph.builder import current
from pierian.tensor import Tensor


def _loss(name: str, y_true: Any, y_pred: Any, **attributes: Any) -> Tensor:
    """Labels are read in the element type of the predictions."""
    b = current()
    predicted = b.as_value(y_pred)
    if not predicted.dtype.is_float:
        predicted = b.cast_to(predicted, b.constant(0.0).dtype)
    expected = b.cast_to(b.as_value(y_true), predicted.dtype)
    return getattr(b, name)(expected, predicted, **attributes)


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """Mean over the last axis of the squared difference."""
    return _loss("mean_squared_error", y_true, y_pred)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Tensor:
    """Mean over the last axis of the absolute difference."""
    return _loss("mean_absolute_error", y_true, y_pred)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Tensor:
    """Mean over the last axis of half the squared difference up to `delta`, and linear beyond."""
    return _loss("huber", y_true, y_pred, delta=delta)


def binary_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False) -> Tensor:
    """Mean over the last axis of the cross-entropy of yes/no labels and probabilities (or logits)."""
    return _loss("binary_crossentropy", y_true, y_pred, from_logits=from_logits)


def categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False) -> Tensor:
    """Cross-entropy along the last axis of distributions and probabilities (or logits)."""
    return _loss("categorical_crossentropy", y_true, y_pred, from_logits=from_logits)


def sparse_categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False) -> Tensor:
    """Cross-entropy along the last axis of integer classes and probabilities (or logits)."""
    b = current()
    return b.sparse_categorical_crossentropy(b.as_value(y_true), b.as_value(y_pred), from_logits=from_logits)


mse = MSE = mean_squared_error
mae = MAE = mean_absolute_error


class Loss:
    """A loss averaged (or summed) over examples.

    Args:
        reduction: "sum_over_batch_size" (or "auto") for the mean, "sum", or "none" for one value for each example.
    """

    def __init__(self, reduction: str = "sum_over_batch_size", name: str | None = None, **options: Any) -> None:
        if reduction not in ("auto", "sum_over_batch_size", "sum", "none"):
            raise ArgumentError("unknown reduction", got=reduction, expected="sum_over_batch_size, sum or none")
        self.reduction = reduction
        self.name = name
        self.options = options

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """The loss of each example."""
        raise NotImplementedError(type(self).__name__)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        b = current()
        values = self.call(y_true, y_pred)
        if sample_weight is not None:
            values = b.multiply(values, b.cast_to(b.as_value(sample_weight), values.dtype))
        if self.reduction == "none":
            return values
        return b.sum(values) if self.reduction == "sum" else b.mean(values)


class MeanSquaredError(Loss):
    """Mean squared error."""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_squared_error(y_true, y_pred)


class MeanAbsoluteError(Loss):
    """Mean absolute error."""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_absolute_error(y_true, y_pred)


class Huber(Loss):
    """Huber loss: quadratic up to `delta`, linear beyond."""

    def __init__(self, delta: float = 1.0, reduction: str = "sum_over_batch_size", name: str | None = None) -> None:
        super().__init__(reduction, name)
        self.delta = delta

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return huber(y_true, y_pred, self.delta)


class _CrossEntropy(Loss):
    def __init__(
        self, from_logits: bool = False, reduction: str = "sum_over_batch_size", name: str | None = None
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = from_logits


class BinaryCrossentropy(_CrossEntropy):
    """Cross-entropy of yes/no labels."""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return binary_crossentropy(y_true, y_pred, self.from_logits)


class CategoricalCrossentropy(_CrossEntropy):
    """Cross-entropy of distributions."""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return categorical_crossentropy(y_true, y_pred, self.from_logits)


class SparseCategoricalCrossentropy(_CrossEntropy):
    """Cross-entropy of integer classes."""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return sparse_categorical_crossentropy(y_true, y_pred, self.from_logits)
