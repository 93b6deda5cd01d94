"""Explanations and profiles against the peak: every kernel with operators, reasons, schedule, work and lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pierian as tf
from pierian.cli.main import cli
from pierian.compiler.cost import Peak
from pierian.runtime.peak import measured_peak


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph = tf.Graph("step")
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["n", 64], name="x")
        w = tf.Variable(np.eye(64, dtype=np.float32), name="w")
        h = tf.tanh(tf.matmul(x, w, name="product"))
        y = tf.softmax(h, axis=-1)
        grown = w.assign(w * 0.9)
        other = tf.Variable(np.eye(64, dtype=np.float32), name="other")
        graph.set_outputs([y, grown, other.assign(tf.matmul(other, other))], ["y", "w", "other"])
    graph.save(tmp_path / "step.pb")
    return tmp_path / "step.pb"


def pierian(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done.output


def test_every_kernel_is_explained(model: Path) -> None:
    text = pierian("explain", model, "--size", "n=1000", "--peak", "100,20")
    assert "given" in text and "schedule:" in text and "test_explain.py" in text
    assert "8,192,000" in text, "the product's operations at that size"
    assert "other_next is not updated in place: a kernel reads other elements" in text
    found = json.loads(pierian("explain", model, "--size", "n=1000", "--peak", "100,20", "--json"))
    moved = {one["kernel"]: (one["reads"], one["writes"]) for one in found["kernels"]}
    assert (256_000 + 16_384, 256_000) in moved.values() and "reads 272,384 bytes, writes 256,000" in text
    kernels: list[dict[str, Any]] = found["kernels"]
    (product,) = [one for one in kernels if one["flops"] > 2 * 64 * 64 * 1000 - 1]
    assert product["kind"] == "contraction" and ["dot_general", "dot_general"] in product["nodes"]
    assert product["bound"] == "arithmetic" and product["seconds"] >= 8.192e6 / 100e9
    assert product["ends"] and all(product["ends"].values()) and product["schedule"]
    assert ["w_next", "w"] in [pair for one in kernels for pair in one["in_place"]]
    assert "other_next" in found["two_arrays"]


def test_open_sizes_and_single_nodes(model: Path) -> None:
    found = json.loads(pierian("explain", model, "--peak", "100,20", "--node", "softmax", "--json"))["kernels"]
    whole = json.loads(pierian("explain", model, "--peak", "100,20", "--json"))["kernels"]
    assert len(found) <= len(whole) and any("n" in str(one["flops"]) and one["bound"] == "" for one in whole)
    assert json.loads(pierian("explain", model, "--peak", "100,20", "--node", "nothing", "--json"))["kernels"] == []
    pierian("explain", model, "--peak", "fast", code=2)
    pierian("explain", model, "--peak", "100,20", "--size", "m=3", code=1)


def test_cost_models_are_printed(tmp_path: Path) -> None:
    """Every way to compute a contraction that was considered has a prediction; the one below the others was taken."""
    graph = tf.Graph("ways")
    with graph.as_default():
        few, many = (tf.placeholder(tf.float32, [rows, 300]) for rows in (16, 40))
        points, small = tf.placeholder(tf.float32, ["n", 4]), tf.placeholder(tf.float32, [4, 4])
        image, filters = tf.placeholder(tf.float32, [1, 58, 58, 64]), tf.placeholder(tf.float32, [3, 3, 64, 64])
        square = tf.placeholder(tf.float32, [256, 256])
        products = {
            "dots": tf.matmul(few, many, transpose_b=True), "lanes": tf.matmul(points, small),
            "winograd": tf.nn.conv2d(image, filters, 1, "VALID"), "tiles": tf.matmul(square, square, transpose_b=True),
        }  # fmt: skip
        graph.set_outputs(list(products.values()), list(products))
    graph.save(tmp_path / "ways.pb")
    given = json.loads(pierian("explain", tmp_path / "ways.pb", "--peak", "100,20", "--json"))["kernels"]
    words = {"dots": "along the vectors", "lanes": "in each of", "winograd": "winograd 2", "tiles": "256 x 256"}
    found = {way: one["ways"] for one in given for way in products if words[way] in one["schedule"][0]}
    assert found["dots"]["inner products"] < 1 < found["tiles"]["inner products"]
    assert found["lanes"]["a point in each lane"] < 1 and found["winograd"]["winograd"] < 0.9
    assert "shares of the time of register tiles: winograd 0." in pierian(
        "explain", tmp_path / "ways.pb", "--peak", "100,20", "--node", "conv"
    )


def test_choices_are_no_arithmetic(tmp_path: Path) -> None:
    graph = tf.Graph("edges")
    with graph.as_default():
        x = tf.placeholder(tf.float32, [8, 8], name="x")
        graph.set_outputs([tf.pad(x, [1, 2], [1, 0])], ["y"])
    graph.save(tmp_path / "edges.pb")
    (one,) = json.loads(pierian("explain", tmp_path / "edges.pb", "--peak", "100,20", "--json"))["kernels"]
    assert one["flops"] == 0 and one["bound"] == "memory"


def test_the_roofline() -> None:
    peak = Peak(100e9, 40e9, 10e9, 1 << 20, "given")
    assert peak.shortest(1e9, 4e3) == (1e-2, "arithmetic")
    assert peak.shortest(1e9, 4e3, bits=64) == (2e-2, "arithmetic")
    assert peak.shortest(1e3, 4e5) == (1e-5, "cache")
    assert peak.shortest(1e3, 4e6) == (4e-4, "memory")


def test_a_measured_peak_is_plausible() -> None:
    peak = measured_peak(1)
    assert measured_peak(1) is peak and "measured" in peak.source
    assert 1e8 < peak.flops < 1e13 and 1e8 < peak.far < 1e13 and peak.near > 0.3 * peak.far


def test_profiles_know_the_peak(tmp_path: Path, model: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((300, 64), np.float32))
    arguments = ["profile", model, "--input", f"x={tmp_path / 'x.npy'}", "--threads", 1]
    text = pierian(*arguments, "--trace", tmp_path / "trace.json")
    assert "of peak" in text and "peak (measured" in text and "arithmetic" in text
    found = json.loads(pierian(*arguments, "--json"))
    times = [one["ms"] for one in found["kernels"]]
    assert times == sorted(times, reverse=True) and abs(sum(one["share"] for one in found["kernels"]) - 1) < 1e-6
    assert all(one["of_peak"] > 0 and one["bound"] for one in found["kernels"] if one["bytes"])
    assert "of peak" not in pierian(*arguments, "--no-peak")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X"}
    for event in events:
        assert {"name", "ph", "pid", "tid", "args"} <= event.keys()
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0 and event["args"]["lines"] and event["args"]["runs"] == 1
