"""Object code from several threads: the same bytes whatever their number, errors that reach the caller, modules that fit."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest

import pierian as tf
from pierian.compiler.codegen import module, modules
from pierian.compiler.codegen.emission import Emission
from pierian.compiler.errors import LoweringError
from pierian.compiler.target.features import host
from pierian.compiler.target.llvm import Emitter


def training_graph() -> tuple[Any, Any, Any]:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", [None, 37], name="x")
        w = tf.Variable(np.linspace(-1, 1, 37 * 50, dtype=np.float32).reshape(37, 50), name="w")
        v = tf.Variable(np.linspace(-1, 1, 50 * 20, dtype=np.float32).reshape(50, 20), name="v")
        y = tf.softmax(tf.matmul(tf.tanh(tf.matmul(x, w)), v))
        loss = tf.reduce_mean(tf.log(y + 1.0)) + tf.reduce_sum(tf.exp(-(y * y)))
        results = [y, loss, *tf.gradients(loss, [w, v])]
    return graph, x, results


def test_bytes_do_not_depend_on_threads_nor_on_what_else_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "MODULE", 4000)
    graph, x, results = training_graph()

    def objects(threads: int) -> list[bytes]:
        monkeypatch.setattr(module, "Emission", lambda target: Emission(target, threads))
        return tf.Session(graph, threads=1).compiled(results, [x]).image.objects

    alone = objects(1)
    assert len(alone) > 5
    assert objects(2) == alone and objects(4) == alone
    found: list[list[bytes]] = []
    many = [threading.Thread(target=lambda: found.append(objects(3))) for _ in range(4)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    assert found == [alone] * 4


def test_cuts_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIERIAN_CACHE", "off")
    data = np.random.default_rng(0).standard_normal((40, 37)).astype(np.float32)

    def bits() -> list[bytes]:
        graph, x, results = training_graph()
        with tf.Session(graph, threads=2) as session:
            return [np.asarray(result).tobytes() for result in session.run(results, {x: data})]

    whole = bits()
    monkeypatch.setattr(modules, "MODULE", 1)  # a module for each kernel, and the entry point without optimization
    assert bits() == whole


def test_what_llvm_refuses_is_an_error_of_the_caller() -> None:
    good, bad = "define i32 @f() {\n ret i32 1\n}\n", "define i32 @f() {\n ret float 1\n}\n"
    with Emission(host(), 3) as emission:
        for text in (good, bad, good):
            emission.add(text)
        with pytest.raises(LoweringError, match="malformed"):
            emission.objects()
    with pytest.raises(RuntimeError, match="writing failed"), Emission(host(), 3) as emission:
        for _ in range(10):
            emission.add(good)
        raise RuntimeError("writing failed")
    assert threading.active_count() < 20 and Emitter(host()).emit(good) == Emitter(host()).emit(good)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_compiles() -> None:
    with Emission(host(), 2) as emission:
        emission.add("define i32 @f() {\n ret i32 1\n}\n")
        wanted = emission.objects()
    child = os.fork()
    if child == 0:
        with Emission(host(), 2) as emission:
            emission.add("define i32 @f() {\n ret i32 1\n}\n")
            os._exit(0 if emission.objects() == wanted else 1)
    assert os.waitpid(child, 0)[1] == 0
