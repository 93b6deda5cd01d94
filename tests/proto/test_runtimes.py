"""Graph files under the oldest protobuf runtime we declare and under the newest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import google.protobuf
import pierian as tf
graph = tf.Graph("g")
with graph.as_default():
    x = tf.placeholder(tf.float32, ["n", 2], name="x")
    graph.set_outputs([tf.matmul(x, tf.constant([[1.0], [2.0]]), name="y")], ["y"])
for suffix in (".pb", ".pbtxt"):
    graph.save(sys.argv[1] + suffix)
    assert [node.name for node in tf.Graph.load(sys.argv[1] + suffix).nodes] == [node.name for node in graph.nodes]
print(google.protobuf.__version__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("requirement", ["protobuf==5.26.0", "protobuf"])
def test_round_trip_under(requirement: str, tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), requirement],
        check=True,
    )
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "g")],
        env=dict(os.environ, PYTHONPATH=str(folder)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    if "==" in requirement:
        assert found.stdout.strip() == requirement.partition("==")[2]
