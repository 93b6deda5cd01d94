"""Libraries for processors other than this one: they compile anywhere, and run in an emulator where there is one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.aot.library import compile_library

# the number of the machine in an ELF file, a compiler for it, an emulator
MACHINES = {
    "neon": (183, "aarch64-linux-gnu-gcc", "qemu-aarch64"),
    "riscv": (243, "riscv64-linux-gnu-gcc", "qemu-riscv64"),
}
READ = """
#include <stdio.h>
#include <stdlib.h>
#include "model.h"
static void *make(size_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }
static void *read(const char *name, size_t bytes) {
  void *place = make(bytes);
  FILE *file = fopen(name, "rb");
  if (fread(place, 1, bytes, file) != bytes) exit(9);
  fclose(file);
  return place;
}
static void write(const char *name, void *place, size_t bytes) {
  FILE *file = fopen(name, "wb");
  fwrite(place, 1, bytes, file);
  fclose(file);
}
"""


def products(x: Any, w: Any) -> list[Any]:
    """Panels that are packed, read in place and transposed; a vector."""
    return [tf.nn.relu(x @ w + 1.0), tf.matmul(x, x, transpose_b=True), tf.matmul(w, w, transpose_a=True), x[:1] @ w]


def attention(x: Any, w: Any) -> list[Any]:
    scores = tf.softmax(tf.matmul(x, x, transpose_b=True) * 0.1)
    return [scores @ x, *tf.gradients(tf.reduce_sum(tf.square(scores @ x)), [x])]


def convolution(x: Any, w: Any) -> list[Any]:
    """Winograd's, one with strides, and the gradients."""
    images, filters = tf.reshape(x[:, :288], (4, 12, 6, 37)), tf.reshape(w[:222, :21], (3, 2, 37, 21))
    y = tf.nn.conv2d(images, filters, 1, "SAME")
    z = tf.nn.conv2d(images, filters, 2, "SAME")
    return [y, z, *tf.gradients(tf.reduce_sum(tf.square(y)) + tf.reduce_sum(z), [x, w])]


def reductions(x: Any, w: Any) -> list[Any]:
    sums = [tf.reduce_sum(x, axis=0), tf.reduce_sum(x, axis=1), tf.reduce_max(x), tf.cumsum(x, axis=1)]
    return [*sums, tf.argmax(x, axis=1), tf.gather(w, [3, 0, 299])]


def elementary(x: Any, w: Any) -> list[Any]:
    """In place, and more functions than are written out."""
    many = tf.exp(tf.sin(tf.tanh(tf.sigmoid(tf.erf(tf.softplus(tf.cos(tf.log1p(tf.abs(x)))))))))
    return [tf.tanh(x), tf.sigmoid(x) * tf.exp(x), many]


PROGRAMS = [products, attention, convolution, reductions, elementary]


def declare(program: Callable[..., list[Any]]) -> tuple[tf.Graph, list[Any], list[Any]]:
    graph = tf.Graph("model")
    with graph.as_default():
        given = [tf.placeholder(tf.float32, (37, 300), name="x"), tf.placeholder(tf.float32, (300, 50), name="w")]
        results = program(*given)
    graph.set_outputs(results)
    return graph, given, results


@pytest.mark.parametrize("machine", MACHINES)
def test_a_library_for_another_processor(machine: str, target_of: Any, tmp_path: Path) -> None:
    graph, _, _ = declare(products)
    compile_library(graph, tmp_path / "model", target=target_of(machine))
    raw = (tmp_path / "model.o").read_bytes()
    assert int.from_bytes(raw[18:20], "little") == MACHINES[machine][0]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_it_gives_the_results_of_this_one(
    program: Callable[..., list[Any]], machine: str, target_of: Any, tmp_path: Path
) -> None:
    """To the bit for any number of threads; sums are in another order than here where vectors are narrower."""
    _, compiler, emulator = MACHINES[machine]
    if shutil.which(compiler) is None or shutil.which(emulator) is None:
        pytest.skip(f"needs {compiler} and {emulator}")
    graph, given, results = declare(program)
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal(value.shape).astype(np.float32) for value in given]
    with tf.Session(graph) as session:
        wanted = session.run(results, dict(zip(given, arrays, strict=True)))
    compile_library(graph, tmp_path / "model", target=target_of(machine))
    for name, array in zip("xw", arrays, strict=True):
        array.tofile(tmp_path / name)
    names = [f"out{i}" for i in range(len(wanted))]
    lines = [
        "int main(int count, char **arguments) {",
        "int64_t threads = atoll(arguments[1]);",
        *(f'void *{name} = read("{name}", {array.nbytes});' for name, array in zip("xw", arrays, strict=True)),
        *(f"void *{name} = make({array.nbytes});" for name, array in zip(names, wanted, strict=True)),
        "void *workspace = make(model_workspace(threads));",
        "model_pool *pool = threads > 1 ? model_pool_create(threads) : NULL;",
        f"int code = model_run(x, w, {', '.join(names)}, workspace, pool);",
        "model_pool_destroy(pool);",
        *(f'write("{name}", {name}, {array.nbytes});' for name, array in zip(names, wanted, strict=True)),
        "return code; }",
    ]
    (tmp_path / "main.c").write_text(READ + "\n".join(lines))
    build = [compiler, "-static", "-pthread", "main.c", "model.o", "-o", "main"]
    subprocess.run(build, check=True, cwd=tmp_path)
    bits = []
    for threads in ("1", "3"):
        subprocess.run([emulator, "./main", threads], check=True, cwd=tmp_path)
        bits.append([(tmp_path / name).read_bytes() for name in names])
    assert bits[0] == bits[1]
    for raw, array in zip(bits[0], wanted, strict=True):
        found = np.frombuffer(raw, array.dtype).reshape(array.shape)
        np.testing.assert_allclose(found, array, rtol=1e-5, atol=2e-6 * np.abs(array).max())
