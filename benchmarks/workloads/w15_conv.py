"""Single convolutions, NCHW, batch 1; the filters stand in the program as constants, as in a network that is run. Checked but
not timed: gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import jax as jax_peer
from peers import onnx as onnx_peer
from peers import pierian as pierian_peer
from peers import tensorflow as tf_peer
from peers import torch as torch_peer

from workloads import Case, Viewed


class Convolution:
    """One convolution in every framework's words."""

    def __init__(self, channels: int, outputs: int, size: int, window: int, stride: int = 1, groups: int = 1) -> None:
        self.channels, self.outputs, self.size, self.window = channels, outputs, size, window
        self.stride, self.groups, self.pad = stride, groups, window // 2
        self.out = (size + 2 * self.pad - window) // stride + 1

    def inputs(self) -> dict[str, Any]:
        rng = np.random.default_rng(15)
        return {
            "x": rng.standard_normal((1, self.channels, self.size, self.size), dtype=np.float32),
            "w": rng.standard_normal(
                (self.outputs, self.channels // self.groups, self.window, self.window), dtype=np.float32
            ),
        }

    def pierian(self, p: Any, x: Any, w: Any) -> Any:
        filters = p.permute_dims(w, (2, 3, 1, 0))
        return p.nn.conv2d(x, filters, self.stride, [(self.pad, self.pad)] * 2, "NCHW")

    def gradient(self, p: Any, x: Any, w: Any) -> Any:
        y = self.pierian(p, x, w)
        return p.gradients(p.sum(y * y), [x, w])

    def torch(self, torch: Any, x: Any, w: Any) -> Any:
        return torch.nn.functional.conv2d(x, w, stride=self.stride, padding=self.pad, groups=self.groups)

    def jax(self, jnp: Any, x: Any, w: Any) -> Any:
        from jax import lax

        pads = [(self.pad, self.pad)] * 2
        return lax.conv_general_dilated(x, w, (self.stride,) * 2, pads, feature_group_count=self.groups)

    def tensorflow(self, data: dict[str, Any]) -> Any:
        """In NHWC, the only layout TensorFlow has on CPUs, arrays laid out so beforehand; the results are turned to look at
        them."""
        depthwise = self.groups > 1
        data = {
            "x": np.ascontiguousarray(data["x"].transpose(0, 2, 3, 1)),
            "w": np.ascontiguousarray(data["w"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))),
        }
        pads = [[0, 0], [self.pad, self.pad], [self.pad, self.pad], [0, 0]]

        def convolve(tf: Any, x: Any, w: Any) -> Any:
            call = tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d
            return call(x, w, [1, self.stride, self.stride, 1], pads)

        call = tf_peer.function(convolve, data, constants=["w"])
        return Viewed(call, lambda: np.asarray(call()).transpose(0, 3, 1, 2))

    def model(self, data: dict[str, Any]) -> bytes:
        from onnx.helper import make_node

        node = make_node("Conv", ["x", "w"], ["y"], strides=[self.stride] * 2, pads=[self.pad] * 4, group=self.groups)
        shape = [1, self.outputs, self.out, self.out]
        return onnx_peer.model([node], {"x": data["x"]}, {"y": (np.float32, shape)}, {"w": data["w"]})

    def _windows(self, x: Any) -> Any:
        wide = np.pad(x, [(0, 0), (0, 0), (self.pad, self.pad), (self.pad, self.pad)])
        seen = np.lib.stride_tricks.sliding_window_view(wide, (self.window, self.window), (2, 3))
        return seen[:, :, :: self.stride, :: self.stride]

    def reference(self, x: Any, w: Any) -> Any:
        seen = self._windows(x)
        if self.groups > 1:
            return np.einsum("bchwuv,cuv->bchw", seen, w[:, 0])
        return np.moveaxis(np.tensordot(seen, w, ((1, 4, 5), (1, 2, 3))), -1, 1)

    def gradient_reference(self, x: Any, w: Any) -> Any:
        seen, dy = self._windows(x), 2 * self.reference(x, w)
        wide = np.zeros((1, self.channels, self.size + 2 * self.pad, self.size + 2 * self.pad), x.dtype)
        end = self.stride * (self.out - 1) + 1
        for u in range(self.window):
            for v in range(self.window):
                if self.groups > 1:
                    part = dy * w[None, :, 0, u, v, None, None]
                else:
                    part = np.moveaxis(np.tensordot(dy, w[:, :, u, v], ((1,), (0,))), -1, 1)
                wide[:, :, u : u + end : self.stride, v : v + end : self.stride] += part
        dx = wide[:, :, self.pad : self.pad + self.size, self.pad : self.pad + self.size]
        if self.groups > 1:
            return dx, np.einsum("bchwuv,bchw->cuv", seen, dy)[:, None]
        return dx, np.tensordot(dy, seen, ((0, 2, 3), (0, 2, 3)))

    def case(self) -> Case:
        return Case(
            self.inputs,
            {
                "pierian": lambda d: pierian_peer.graph(self.pierian, d, ["w"]),
                "torch": lambda d: torch_peer.function(self.torch, d),
                "torch_compile": lambda d: torch_peer.function(self.torch, d, compile=True, constants=["w"]),
                "jax": lambda d: jax_peer.function(self.jax, d, ["w"]),
                "tf_function": self.tensorflow,
                "ort": lambda d: onnx_peer.ort(self.model(d), {"x": d["x"]}),
                "openvino": lambda d: onnx_peer.openvino(self.model(d), {"x": d["x"]}),
            },
            self.reference,
            1e-5,
            flops=2.0 * self.out**2 * self.outputs * self.channels // self.groups * self.window**2,
            bytes=4.0
            * (
                self.channels * self.size**2
                + self.outputs * self.out**2
                + self.outputs * self.channels // self.groups * self.window**2
            ),
        )

    def check(self) -> Case:
        return Case(
            self.inputs, {"pierian": lambda d: pierian_peer.graph(self.gradient, d)}, self.gradient_reference, 1e-5
        )


CONVOLUTIONS = {
    "3x3_64_64_56": Convolution(64, 64, 56, 3),
    "1x1_256_64_56": Convolution(256, 64, 56, 1),
    "7x7s2_3_64_224": Convolution(3, 64, 224, 7, 2),
    "dw3x3_96_112": Convolution(96, 96, 112, 3, 1, 96),
    "3x3_512_512_7": Convolution(512, 512, 7, 3),
}
CASES = {name: convolution.case() for name, convolution in CONVOLUTIONS.items()}
CHECKS = {f"{name}_gradient": convolution.check() for name, convolution in CONVOLUTIONS.items()}
