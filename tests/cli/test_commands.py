"""The command line, as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pierian as tf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph = tf.Graph("cli")
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["n", 3], name="x")
        w = tf.Variable(np.eye(3, dtype=np.float32), name="w")
        graph.set_outputs([tf.softmax(x @ w)], ["y"])
    graph.save(tmp_path / "model.pb")
    return tmp_path / "model.pb"


def pierian(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pierian.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def test_show(model: Path) -> None:
    text = pierian("show", model).stdout
    assert "%softmax = softmax(%matmul)" in text and "variables" in text and "18*n" in text


@pytest.mark.parametrize(("option", "value", "expected"), [
    ("--after", "expand", "dot_general"), ("--emit", "kernels", "kernel pierian_k0 contraction"), ("--emit", "plan", "launch k0"),
    ("--emit", "llvm", "define"), ("--emit", "asm", "ret"), ("--after", "all", "# after cse"),
])  # fmt: skip
def test_dump(model: Path, option: str, value: str, expected: str) -> None:
    assert expected in pierian("dump", model, option, value).stdout


def test_run(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    pierian("run", model, "--input", f"x={tmp_path / 'x.npy'}", "--output", tmp_path / "out")
    np.testing.assert_allclose(np.load(tmp_path / "out" / "y.npy"), np.full((2, 3), 1 / 3), rtol=1e-6)


def test_compile(model: Path, tmp_path: Path) -> None:
    pierian("compile", model, "-o", tmp_path / "build" / "model")
    assert (tmp_path / "build" / "model.o").exists() and "model_run" in (tmp_path / "build" / "model.h").read_text()


def test_errors_are_one_line(model: Path, tmp_path: Path) -> None:
    done = pierian("show", tmp_path / "none.pb", code=1)
    assert len(done.stderr.strip().splitlines()) == 1 and "none.pb" in done.stderr
    done = pierian("run", model, code=1)
    assert "placeholder 'x' needs a value" in done.stderr and "Traceback" not in done.stderr
    assert "Traceback" in pierian("--debug", "run", model, code=1).stderr
    pierian("dump", model, "--after", "nonsense", code=1)
    pierian("dump", model, "--emit", "nonsense", code=2)


def test_memory_is_known_before_the_run(model: Path) -> None:
    text = pierian("show", model, "--no-text", "--no-table").stdout
    assert "12*n" in text and "workspace" in text
    text = pierian("show", model, "--no-text", "--no-table", "--size", "n=1000", "--threads", 2).stdout
    assert "12,000" in text and "12*n" not in text and "threads: 2" in text
    pierian("show", model, "--size", "n", code=2)
    assert "no open size named 'm'; expected: n" in pierian("show", model, "--size", "m=3", code=1).stderr
