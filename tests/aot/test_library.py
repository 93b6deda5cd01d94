"""A C program built against a compiled library gives the bits that a Session gives."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.aot.library import compile_library

PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "model.h"
int main(int argc, char **argv) {
  int64_t n = atoll(argv[1]);
  int64_t threads = atoll(argv[2]);
  float *x = malloc(n * 16 * 4), *w = malloc(16 * 10 * 4), *y = malloc(n * 10 * 4);
  FILE *in = fopen("in.bin", "rb");
  if (fread(x, 4, n * 16, in) != (size_t)(n * 16) || fread(w, 4, 160, in) != 160) return 9;
  fclose(in);
  void *workspace = aligned_alloc(64, (model_workspace(n, threads) + 64) / 64 * 64);
  model_pool *pool = threads > 1 ? model_pool_create(threads) : NULL;
  if (model_run(-1, x, w, y, workspace, pool) != MODEL_BAD_SIZE) return 7;
  if (model_run(n, NULL, w, y, workspace, pool) != MODEL_NULL_POINTER) return 8;
  int code = model_run(n, x, w, y, workspace, pool);
  model_pool_destroy(pool);
  FILE *out = fopen("out.bin", "wb");
  fwrite(y, 4, n * 10, out);
  fclose(out);
  return code;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("threads", [1, 2])
def test_c_program_gives_the_bits_of_a_session(tmp_path: Path, threads: int) -> None:
    graph = tf.Graph("model")
    rng = np.random.default_rng(0)
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["n", 16], name="x")
        w = tf.Variable(rng.standard_normal((16, 10)).astype(np.float32), name="w")
        y = tf.softmax(tf.tanh(x @ w) * 3.0 + np.arange(10, dtype=np.float32))
        graph.set_outputs([y], ["y"])
    graph.save(tmp_path / "model.pb")
    paths = compile_library(tf.Graph.load(tmp_path / "model.pb"), tmp_path / "model")
    assert [path.suffix for path in paths] == [".o", ".h", ".so"]
    (tmp_path / "main.c").write_text(PROGRAM)
    build = ["cc", "-Wall", "-Werror", "-std=c11", "main.c", "model.o", "-o", "main", "-pthread"]
    subprocess.run(build, check=True, cwd=tmp_path)
    data = rng.standard_normal((9000, 16)).astype(np.float32)
    with tf.Session(graph) as session:
        expected, weights = session.run([y, w], {x: data})
    (tmp_path / "in.bin").write_bytes(data.tobytes() + weights.tobytes())
    subprocess.run(["./main", "9000", str(threads)], check=True, cwd=tmp_path)
    assert (tmp_path / "out.bin").read_bytes() == expected.tobytes()


def test_variables_may_be_updated_in_place(tmp_path: Path) -> None:
    graph = tf.Graph("state")
    start = np.random.default_rng(1).standard_normal((100, 8)).astype(np.float32)
    with graph.as_default():
        table = tf.Variable(start, name="table")
        graph.set_outputs([table.assign(tf.scatter_add(table, [3, 99, 3], tf.tanh(table[:3])))], ["new"])
    library = compile_library(graph, tmp_path / "state")[-1]
    if library.suffix != ".so":
        pytest.skip("needs a linker")
    assert "out_table_next: float32[100, 8], may be the same memory as in_table" in (tmp_path / "state.h").read_text()
    native = ctypes.CDLL(str(library))
    native.state_workspace.restype = ctypes.c_int64
    room = np.empty(native.state_workspace(ctypes.c_int64(1)) + 64, np.uint8)
    workspace = ctypes.c_void_p(-(-room.ctypes.data // 64) * 64)
    place, other, fetched = start.copy(), np.empty_like(start), np.empty_like(start)

    def run(new: np.ndarray) -> None:
        arrays = [ctypes.c_void_p(one.ctypes.data) for one in (place, fetched, new)]
        assert native.state_run(*arrays, workspace, None) == 0

    run(other)
    run(place)
    expected = start.copy()
    np.add.at(expected, [3, 99, 3], np.tanh(start[:3]))
    np.testing.assert_array_equal(place, other)
    np.testing.assert_array_equal(fetched, other)
    np.testing.assert_allclose(place, expected, rtol=1e-6)


def test_nothing_but_libc_is_needed(tmp_path: Path) -> None:
    graph = tf.Graph("plain")
    with graph.as_default():
        x = tf.placeholder(tf.float64, [8], name="x")
        graph.set_outputs([tf.exp(x) + tf.pow(x, 3.5)], ["y"])
    compile_library(graph, tmp_path / "plain")
    names = subprocess.run(["nm", "-u", str(tmp_path / "plain.o")], capture_output=True, text=True, check=True).stdout
    allowed = {
        "aligned_alloc",
        "free",
        "pthread_create",
        "pthread_join",
        "sched_yield",
        "syscall",
        "memset",
        "memmove",
        "memcpy",
    }
    used = {line.split()[-1] for line in names.splitlines() if line.strip()}
    assert used <= allowed | {"_GLOBAL_OFFSET_TABLE_"}
