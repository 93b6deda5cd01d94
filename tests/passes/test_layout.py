"""Images with channels first are computed with channels last between convolutions, and mean the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pierian as tf
from pierian.compiler import reference
from pierian.compiler.graph.graph import Graph
from pierian.compiler.graph.printer import print_graph
from pierian.compiler.options import CompileOptions
from pierian.compiler.pipeline import run_passes
from pierian.compiler.state import close_for_compilation

Golden = Callable[[str, str], None]
SAME = [(1, 1), (1, 1)]


class Net:
    """A network whose channels stand second, and arrays for its input and weights."""

    def __init__(self, shape: tuple[Any, ...] = (2, 5, 8, 7), dtype: str = "float64", **sizes: int) -> None:
        self.dtype = dtype
        self.rng = np.random.default_rng(3)
        self.graph = tf.Graph()
        self.feeds: dict[Any, Any] = {}
        with self.graph.as_default():
            self.x = self.given(shape, **sizes)

    def given(self, shape: tuple[Any, ...], **sizes: int) -> Any:
        value = tf.placeholder(self.dtype, list(shape))
        array = self.rng.standard_normal([sizes.get(dim, dim) for dim in shape]) / 3
        self.feeds[value] = array.astype(self.dtype)
        return value

    def conv(self, x: Any, outputs: int = 6, window: int = 3, stride: int = 1) -> Any:
        filters = self.given((window, window, x.shape[1], outputs))
        return tf.nn.conv2d(x, filters, stride, [(window // 2, window // 2)] * 2, "NCHW")

    def bias(self, x: Any) -> Any:
        return x + tf.reshape(self.given((x.shape[1],)), (x.shape[1], 1, 1))

    def depthwise(self, x: Any) -> Any:
        return tf.nn.depthwise_conv2d(x, self.given((3, 3, x.shape[1], 1)), 1, SAME, "NCHW")

    def normalized(self, x: Any) -> Any:
        apart = x - tf.mean(x, axis=(0, 2, 3), keepdims=True)
        return apart / tf.sqrt(tf.mean(tf.square(apart), axis=(0, 2, 3), keepdims=True) + 1.0)

    def weighed(self, x: Any) -> Any:
        """Channels weighed by what a small product makes of their means."""
        weights = tf.sigmoid(tf.matmul(tf.mean(x, axis=(2, 3)), self.given((x.shape[1], x.shape[1]))))
        return x * tf.expand_dims(weights, axis=(2, 3))

    def check(self, outputs: list[Any], tolerance: float = 1e-10) -> Graph:
        """The graph after all passes, which means what it means before them, compiled too."""
        self.graph.set_outputs(outputs)
        closed, _ = close_for_compilation(self.graph)
        counters = closed.inputs[len(self.feeds) :]  # of random streams, which begin at zero
        begun = (np.zeros([int(dim) for dim in value.shape], value.dtype.numpy) for value in counters)
        arrays = dict(zip(closed.inputs, [*self.feeds.values(), *begun], strict=True))
        turned = run_passes(closed, CompileOptions())
        wanted = reference.run(closed, arrays)[: len(outputs)]
        with tf.Session(self.graph, threads=2) as session:
            run = session.run(outputs, self.feeds)
        for found in (reference.run(turned, dict(zip(turned.inputs, arrays.values(), strict=True))), run):
            for one, other in zip(found[: len(outputs)], wanted, strict=True):
                scale = max(1.0, float(np.abs(other).max(initial=0)))
                np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)
        return turned


def turns(graph: Graph) -> int:
    """How many whole images are turned around: nodes that bring the second axis of several to the end, or the last one forward."""
    found = 0
    for node in graph.nodes:
        if node.op.name == "permute_dims" and node.inputs[0].node.op.name not in ("zeros", "broadcast_to"):
            axes, rank = node.attributes["axes"], node.output.type.rank
            is_turn = axes in ((0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1)))
            found += is_turn and sum(dim != 1 for dim in node.output.shape) > 2
    return found


def block(net: Net, x: Any) -> Any:
    """Much of what stands between convolutions, with a way around."""
    y = tf.nn.relu(net.bias(net.conv(x)))
    y = tf.nn.max_pool(y, 3, 2, SAME, "NCHW")
    z = tf.nn.relu(net.normalized(net.conv(y, 6, 1)))
    z = net.depthwise(z)
    return net.conv(net.weighed(z + y))


def test_text_of_an_image_between_convolutions(golden: Golden) -> None:
    net = Net((2, 16, 8, 8), "float32")
    with net.graph.as_default():
        y = net.conv(tf.nn.relu(net.bias(net.conv(net.x, 16))), 16)
        net.graph.set_outputs([y], ["y"])
    closed, _ = close_for_compilation(net.graph)
    golden("images.pir", print_graph(run_passes(closed, CompileOptions(), "dce-again"), locations=False))


def test_only_what_comes_in_and_goes_out_is_turned() -> None:
    net = Net()
    with net.graph.as_default():
        assert turns(net.check([block(net, net.x)])) == 2
        assert turns(net.check([tf.sum(block(net, net.x), axis=(2, 3))])) == 1


def test_gradients_are_computed_with_channels_last() -> None:
    net = Net((3, 5, 8, 7))
    with net.graph.as_default():
        loss = tf.sum(tf.square(tf.mean(block(net, net.x), axis=(2, 3))))
        weights = [value for value in net.feeds if value is not net.x]
        turned = net.check([loss, *tf.gradients(loss, weights)])
    assert turns(turned) == 1
    images = [node for node in turned.nodes if node.op.name == "dot_general" and node.output.type.rank == 3]
    assert not any(node.attributes["transpose_x"] for node in images)  # one product for the whole batch


@pytest.mark.parametrize("batch", [1, "n"])
def test_what_has_to_be_read_with_channels_first_is_turned_once(batch: Any) -> None:
    """An image between two convolutions that is handed out as well."""
    net = Net((batch, 5, 8, "w"), n=3, w=9)
    with net.graph.as_default():
        middle = tf.tanh(net.bias(net.conv(net.x)))
        turned = net.check([net.conv(middle), middle, tf.cumsum(middle, axis=3)])
    assert turns(turned) == 3  # the input, the last image, and the one in the middle
    assert sum(node.op.name == "tanh" for node in turned.nodes) == 1


def test_an_image_that_is_turned_anyway_is_an_operand_with_channels_last() -> None:
    net = Net((2, 9, 8, 7))
    with net.graph.as_default():
        turned = net.check([net.conv(net.conv(net.x, 9) + net.x)])
    assert turns(turned) == 2


def test_images_that_nothing_has_turned_stay_as_they_are() -> None:
    """A large operand would have to be turned around; single operators on images with channels first need no turn."""
    net = Net((2, 6, 8, 7))
    with net.graph.as_default():
        large = net.given((2, 6, 8, 7))
        turned = net.check([net.conv(net.conv(net.x) * large), tf.nn.max_pool(large, 2, 2, "VALID", "NCHW")])
        assert turns(turned) == 4
        turned = net.check([net.depthwise(net.conv(net.x, 6, 1))])
    assert turns(turned) == 0


def test_matrices_that_are_merely_transposed_stay_as_they_are() -> None:
    net = Net((2, 6, 9))
    with net.graph.as_default():
        turned = net.check([tf.matmul(net.given((4, 9)), tf.permute_dims(net.x, (0, 2, 1)))])
    (product,) = (node for node in turned.nodes if node.op.name == "dot_general")
    assert product.output in turned.outputs


def pooled(net: Net, x: Any) -> Any:
    return tf.nn.avg_pool(x, 3, 1, "SAME", "NCHW")


def padded(net: Net, x: Any) -> Any:
    return tf.pad(x, (0, 1, 0, 2), (1, 0, 2, 0), 0.5)[:, 1:, :-2, 2:]


def beside(net: Net, x: Any) -> Any:
    return tf.concat([x, net.conv(x, 2, 1), x[:, ::2]], axis=1)[:, 1:]


def likely(net: Net, x: Any) -> Any:
    return tf.softmax(x, axis=1) + tf.max(x, axis=(1, 2), keepdims=True)


def scaled(net: Net, x: Any) -> Any:
    """Parameters of several ranks, and a mask of places."""
    y = x * net.given((1, x.shape[1], 1, 1)) + net.given((1, 1))
    return tf.where(tf.max(y, axis=1, keepdims=True) > 0.0, y, tf.zeros_like(y))


def enlarged(net: Net, x: Any) -> Any:
    """Every row twice: axes put in between and taken out again."""
    twice = tf.expand_dims(x, axis=3)
    twice = tf.concat([twice, 0.5 * twice], axis=3)
    return tf.max(tf.squeeze(tf.expand_dims(twice, axis=5), axis=5), axis=3)


def strided(net: Net, x: Any) -> Any:
    """Its gradient puts elements apart."""
    return tf.flip(x, axis=(2,))[:, :, ::2]


def dropped(net: Net, x: Any) -> Any:
    return tf.where(tf.random.uniform(tuple(x.shape), dtype=net.dtype, seed=4) < 0.5, x, tf.zeros_like(x))


def both_ways(net: Net, x: Any) -> Any:
    """Also read by something that must have channels first."""
    return x + tf.cumsum(x, axis=1)


LAYERS: dict[str, Callable[[Net, Any], Any]] = {
    "conv": lambda net, x: net.conv(x, 4),
    "strided conv": lambda net, x: net.conv(x, 5, 3, 2),
    "pointwise": lambda net, x: net.conv(x, 7, 1),
    "depthwise": Net.depthwise,
    "bias": Net.bias,
    "relu": lambda net, x: tf.nn.relu(x),
    "max pool": lambda net, x: tf.nn.max_pool(x, 3, 2, SAME, "NCHW"),
    "normalized": Net.normalized,
    "weighed": Net.weighed,
    "residual": lambda net, x: net.conv(tf.nn.relu(net.conv(x, x.shape[1])), x.shape[1]) + x,
    **{rule.__name__: rule for rule in (pooled, padded, beside, likely, scaled, enlarged, strided, dropped, both_ways)},
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), ("n", 3, "h", 5)])
def test_a_layer_between_convolutions(name: str, shape: tuple[Any, ...]) -> None:
    net = Net(shape, n=2, h=6)
    with net.graph.as_default():
        x = net.conv(LAYERS[name](net, net.conv(net.x, 4)), 3)
        loss = tf.sum(x * x)
        net.check([x, *tf.gradients(loss, list(net.feeds))], 1e-9)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(sorted(LAYERS)), max_size=5), st.booleans(), st.booleans())
def test_networks_of_random_layers(layers: list[str], is_open: bool, ends_open: bool) -> None:
    net = Net(("n", 3, "h", 8) if is_open else (2, 3, 9, 8), n=2, h=9)
    with net.graph.as_default():
        x = net.conv(net.x, 4)
        for name in layers:
            x = LAYERS[name](net, x)
        x = x if ends_open else tf.mean(net.conv(x, 4), axis=(2, 3))
        net.check([x, *tf.gradients(tf.sum(tf.tanh(x)), list(net.feeds))], 1e-8)
