"""Operators for networks under TensorFlow's `nn` names."""

from __future__ import annotations

from typing import Any

from pierian.compiler.graph.builder import current
from pierian.compiler.ops.activation import (
    elu,
    gelu,
    layer_norm,
    leaky_relu,
    log_softmax,
    relu,
    silu,
    softmax,
    softplus,
)
from pierian.compiler.ops.elementary import sigmoid, tanh
from pierian.convolution import avg_pool, conv1d, conv2d, conv2d_transpose, convolution, depthwise_conv2d, max_pool

swish = silu
avg_pool2d = avg_pool
max_pool2d = max_pool


def sparse_softmax_cross_entropy_with_logits(labels: Any, logits: Any, name: str | None = None) -> Any:
    """Cross-entropy along the last axis of `logits` with the class that each integer of `labels` names."""
    b = current()
    return b.sparse_softmax_cross_entropy(b.as_value(labels), b.as_value(logits))


def softmax_cross_entropy_with_logits(labels: Any, logits: Any, name: str | None = None) -> Any:
    """Cross-entropy along the last axis of distributions and the softmax of `logits`."""
    b = current()
    return b.softmax_cross_entropy(b.as_value(labels), b.as_value(logits))


def sigmoid_cross_entropy_with_logits(labels: Any, logits: Any, name: str | None = None) -> Any:
    """Cross-entropy of each yes/no label and logit."""
    b = current()
    z = b.as_value(logits)
    return b.subtract(b.softplus(z), b.multiply(b.cast_to(b.as_value(labels), z.dtype), z))


def bias_add(value: Any, bias: Any, name: str | None = None) -> Any:
    """A vector added along the last axis."""
    return current().add(value, bias)


__all__ = [
    "avg_pool", "avg_pool2d", "bias_add", "conv1d", "conv2d", "conv2d_transpose", "convolution", "depthwise_conv2d", "elu",
    "gelu", "layer_norm", "leaky_relu", "log_softmax", "max_pool", "max_pool2d", "relu", "sigmoid",
    "sigmoid_cross_entropy_with_logits", "silu", "softmax", "softmax_cross_entropy_with_logits", "softplus",
    "sparse_softmax_cross_entropy_with_logits", "swish", "tanh",
]  # fmt: skip
