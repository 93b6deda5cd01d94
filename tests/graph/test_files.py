"""Graph files: round trips in all three forms, and what a damaged file gives."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.errors import ArgumentError, FormatError, PierianError
from pierian.compiler.graph.compare import graphs_equal
from pierian.compiler.graph.files import SUFFIXES, load, save, write_atomically
from pierian.compiler.graph.parser import parse_graph
from pierian.compiler.graph.printer import print_graph
from pierian.compiler.graph.verify import verify


def sample() -> tf.Graph:
    """Variables, random state, control flow, gradients, open sizes, and constants that are hard to write down."""
    graph = tf.Graph("sample")
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["n", 4], name="x")
        labels = tf.placeholder(tf.int64, ["n"], name="labels")
        w = tf.Variable(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), name="w")
        h = tf.matmul(x, w) + tf.constant([np.nan, -0.0, 1e-45], tf.float32)
        h = tf.cond(tf.sum(x) > 0.0, lambda: h * 2.0, lambda: h - 1.0)
        total = tf.while_loop(lambda i, a: i < 3, lambda i, a: [i + 1, a * 0.5], [tf.constant(0), tf.sum(h)], 5)[1]
        state, ys = tf.scan(lambda s, v: (s + tf.sum(v), s), total, x)
        loss = tf.mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=h * tf.random.uniform([3])))
        train = tf.keras.optimizers.Adam(0.1).minimize(loss + state * 0.0, var_list=[w])
        graph.set_outputs([loss, ys, *train.effects], ["loss", "ys", *(f"e{i}" for i in range(len(train.effects)))])
    return graph


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(suffix: str, tmp_path: Path) -> None:
    graph = sample()
    path = tmp_path / f"g{suffix}"
    graph.save(path)
    again = load(path)
    assert graphs_equal(graph, again)
    lines = [(node.location.file, node.location.line) for node in again.nodes if node.location is not None]
    assert any(file == __file__ and line > 0 for file, line in lines)
    again.save(tmp_path / f"h{suffix}")
    assert (tmp_path / f"h{suffix}").read_bytes() == path.read_bytes()


def test_text_is_a_fixed_point() -> None:
    text = print_graph(sample())
    assert print_graph(parse_graph(text)) == text


def test_loaded_graph_runs(tmp_path: Path) -> None:
    graph = sample()
    graph.save(tmp_path / "g.pb")
    feeds = {"x": np.ones((5, 4), np.float32), "labels": np.zeros(5, np.int64)}
    results = [tf.Session(g).run(g.outputs[1], feeds) for g in (graph, tf.Graph.load(tmp_path / "g.pb"))]
    np.testing.assert_array_equal(results[0], results[1])


def test_external_data_stays_in_its_folder(tmp_path: Path) -> None:
    graph = sample()
    path = tmp_path / "g.pb"
    save(graph, path, external=16)
    assert graphs_equal(graph, load(path))
    data = tmp_path / "g.pb.data"
    raw = bytearray(data.read_bytes())
    raw[3] ^= 1
    data.write_bytes(raw)
    with pytest.raises(FormatError, match="damaged"):
        load(path)
    text = tmp_path / "g.pbtxt"
    save(graph, text, external=16)
    text.write_text(text.read_text().replace("g.pbtxt.data", "../g.pbtxt.data"))
    with pytest.raises(FormatError, match="folder"):
        load(text)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.pir"
    path.write_text(print_graph(sample()).replace("pierian 1", "pierian 2", 1))
    with pytest.raises(FormatError, match="version"):
        load(path)


def test_an_error_in_text_points(tmp_path: Path) -> None:
    path = tmp_path / "g.pir"
    path.write_text(print_graph(sample()).replace("= matmul(", "= matmull(", 1))
    with pytest.raises(FormatError) as caught:
        load(path)
    assert "g.pir:" in str(caught.value) and "^" in str(caught.value) and "matmull" in str(caught.value)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        sample().save(tmp_path / "g.onnx")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_and_mutated_files_give_our_error(suffix: str, tmp_path: Path) -> None:
    """Whatever a file holds, reading it gives a verified graph or one error of ours."""
    graph = sample()
    path = tmp_path / f"g{suffix}"
    graph.save(path)
    raw = path.read_bytes()
    rng = random.Random(5)
    refused = 0
    for attempt in range(150):
        damaged = bytearray(raw)
        if attempt % 3 == 0:
            damaged = damaged[: rng.randrange(len(raw))]
        else:
            for _ in range(rng.choice((1, 1, 2, 8))):
                place = rng.randrange(len(damaged))
                if attempt % 3 == 1:
                    damaged[place] ^= 1 << rng.randrange(8)
                else:
                    damaged[place : place + rng.randrange(4)] = bytes(rng.choices(b"\x00\xff09az(){}%<,= ", k=2))
        path.write_bytes(damaged)
        try:
            verify(load(path))
        except FormatError as error:
            assert str(error)
            refused += 1
        except PierianError as error:
            pytest.fail(f"{type(error).__name__} instead of FormatError: {error}")
    assert refused > 50


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        load(tmp_path / "none.pb")


@pytest.mark.parametrize(
    ("suffix", "right", "wrong"),
    [
        (".pbtxt", 'op: "exp"\n    inputs: 0', 'op: "exp"\n    inputs: 2'),
        (".pbtxt", 'op: "exp"\n    inputs: 0', 'op: "exp"\n    inputs: 1'),
        (".pbtxt", 'op: "exp"\n    inputs: 0', 'op: "exp"\n    inputs: 99'),
        (".pir", "%y = exp(%x)", "%y = exp(%z)"),
        (".pir", "%y = exp(%x)", "%y = exp(%y)"),
        (".pir", "%y = exp(%x)", "%y = exp(%nowhere)"),
        (".pir", 'return %z as "z"', 'return %q as "z"'),
    ],
)
def test_a_cyclic_or_dangling_graph_names_the_place(suffix: str, right: str, wrong: str, tmp_path: Path) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [2], name="x")
        graph.set_outputs([tf.tanh(tf.exp(x, name="y"), name="z")], ["z"])
    path = tmp_path / f"g{suffix}"
    graph.save(path)
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    with pytest.raises(PierianError) as caught:
        tf.Graph.load(path)
    message = str(caught.value)
    assert "before it is read" in message
    place = "graph.nodes[1]" if suffix == ".pbtxt" else f"{path}:{7 if '%q' in wrong else 5}:"
    assert place in message


def test_files_written_at_once_are_whole_and_have_the_permissions_of_new_files(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: write_atomically(tmp_path / f"{i % 4}.pb", b"x" * 1000, sync=False), range(200)))
        found = sorted(tmp_path.iterdir())
        assert [path.name for path in found] == ["0.pb", "1.pb", "2.pb", "3.pb"]
        assert all(path.stat().st_mode & 0o777 == 0o640 and path.stat().st_size == 1000 for path in found)
    finally:
        assert os.umask(mask) == 0o027
