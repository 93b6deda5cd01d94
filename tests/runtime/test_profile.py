"""Profiles: every kernel with its time, work, operators and lines; results as without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pierian as tf
from pierian.cli.main import cli


def network() -> tuple[tf.Graph, Any, Any]:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["n", 200], name="x")
        w = tf.constant(np.linspace(-1, 1, 200 * 100, dtype=np.float32).reshape(200, 100))
        y = tf.softmax(tf.matmul(x, w), axis=-1)
        graph.set_outputs([y], ["y"])
    return graph, x, y


def test_kernels_with_time_work_and_lines() -> None:
    graph, x, y = network()
    data = np.random.default_rng(0).standard_normal((300, 200)).astype(np.float32)
    profile = tf.Profile()
    with tf.Session(graph, threads=2) as session:
        plain = session.run(y, {x: data})
        found = session.run(y, {x: data}, profile=profile)
    np.testing.assert_array_equal(found, plain)
    (product,) = [kernel for kernel in profile.kernels if kernel.kind == "contraction"]
    assert product.flops == 2 * 300 * 200 * 100 and product.runs == 1
    assert product.bytes >= 4 * (300 * 200 + 300 * 100)
    assert all("test_profile.py" in kernel.lines for kernel in profile.kernels)
    assert all(0 < kernel.seconds <= profile.seconds for kernel in profile.kernels)
    assert sum(kernel.seconds for kernel in profile.kernels) <= profile.seconds
    starts = [kernel.start for kernel in profile.kernels]
    assert starts == sorted(starts) and starts[0] == 0
    assert profile.threads == 2
    assert "contraction" in profile.table() and "dot_general" in profile.table()


def test_kernels_in_loops_add_up() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [9, 64], name="x")
        last, _ = tf.scan(lambda s, at: (tf.tanh(s + at), s), tf.zeros((64,)), x)
    profile = tf.Profile()
    with tf.Session(graph, threads=1) as session:
        for _ in range(2):  # the second run begins at zero again
            session.run(last, {x: np.ones((9, 64), np.float32)}, profile=profile)
    assert max(kernel.runs for kernel in profile.kernels) == 9


def test_a_run_without_kernels() -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [3], name="x")
    profile = tf.Profile()
    with tf.Session(graph) as session:
        np.testing.assert_array_equal(session.run(x, {x: np.ones(3, np.float32)}, profile=profile), np.ones(3))
    assert profile.kernels == []


def test_variables_change_once() -> None:
    graph = tf.Graph()
    with graph.as_default():
        v = tf.Variable(np.float32(1.0), name="v")
        step = v.assign_add(2.0)
    with tf.Session(graph) as session:
        session.run(step, profile=tf.Profile())
        assert session.value(v) == 3.0


@pytest.mark.parametrize("runs", [1, 3])
def test_the_command_and_its_trace(tmp_path: Path, runs: int) -> None:
    graph, _, _ = network()
    graph.save(tmp_path / "net.pb")
    np.save(tmp_path / "x.npy", np.ones((5, 200), np.float32))
    arguments = ["profile", str(tmp_path / "net.pb"), "--input", f"x={tmp_path / 'x.npy'}", "--runs", str(runs)]
    done = CliRunner().invoke(cli, [*arguments, "--trace", str(tmp_path / "trace.json")])
    assert done.exit_code == 0, done.output
    assert "GFLOP/s" in done.output and "contraction" in done.output
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    kernels = [event for event in events if event["ph"] == "X"]
    assert kernels and all(event["dur"] >= 0 for event in kernels)
