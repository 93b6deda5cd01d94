"""Arrays in and out: which are read where they lie, which are copied, which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.dtype import as_dtype
from pierian.compiler.errors import FeedError
from pierian.compiler.shape import TensorType
from pierian.runtime.bind import as_array

TYPE = TensorType(as_dtype("float32"), (2, 3))


class Exporter:
    """An array of a library that NumPy knows by DLPack alone."""

    def __init__(self, array: Any, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **options: Any) -> Any:
        if self.device != (1, 0):
            raise BufferError("the array is on another device")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def values() -> Any:
    return np.arange(6, dtype=np.float32).reshape(2, 3)


def test_what_fits_is_not_copied() -> None:
    array = values()
    locked = values()
    locked.flags.writeable = False
    tensor = tf.constant(array) * 1.0
    for given, owner in [(array, array), (Exporter(array), array), (locked, locked), (tensor, tensor.numpy())]:
        assert np.shares_memory(as_array(given, TYPE, "x"), owner)


def test_what_does_not_fit_is_copied_and_right() -> None:
    shifted = np.frombuffer(b"\0" + values().tobytes(), np.float32, offset=1).reshape(2, 3)
    assert not shifted.flags.aligned
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", [2, 3], name="x")
        y = x * 2.0 + 1.0
    with tf.Session(graph, threads=1) as session:
        call = session.make_callable(y, [x])
        for given in [
            shifted, np.asfortranarray(values()), np.repeat(values(), 2, axis=1)[:, ::2], values().astype(">f4"),
            values().astype(np.float64), values().astype(np.int8), values().tolist(), Exporter(values().T.copy().T),
        ]:  # fmt: skip
            np.testing.assert_array_equal(call(given), values() * 2 + 1)
            np.testing.assert_array_equal(session.run(y, {x: given}), values() * 2 + 1)
        for wrong in [Exporter(values(), (2, 0)), Exporter(values().astype(complex)), object(), [[1.0], [1.0, 2.0]]]:
            with pytest.raises(FeedError, match="'x'"):
                call(wrong)


def test_eager_tensors_and_results_by_dlpack() -> None:
    tensor = tf.constant(values()) + 1.0
    assert tensor.__dlpack_device__() == (1, 0)
    seen = np.from_dlpack(tensor)
    np.testing.assert_array_equal(seen, values() + 1)
    assert np.shares_memory(seen, tensor.numpy()) and not seen.flags.writeable
    assert not np.shares_memory(np.from_dlpack(tensor, copy=True), tensor.numpy())
    assert "dltensor" in repr(tensor.__dlpack__()) and "dltensor_versioned" not in repr(tensor.__dlpack__())
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", [None], name="x")
        y = tf.exp(x)
    with tf.Session(graph, threads=1) as session:
        result = session.run(y, {x: tf.constant(np.zeros(100_000, np.float32))})
        again = np.from_dlpack(result)
        assert np.shares_memory(again, result) and again.flags.writeable and result.ctypes.data % 64 == 0
        with pytest.raises(tf.GraphError):
            np.from_dlpack(y)
