"""Programs kept on disk: the same bits from a second process, nothing trusted that is not whole, bounded, off when asked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pierian as tf
from pierian.cli.main import cli
from pierian.runtime import cache as cache_module
from pierian.runtime.cache import SUFFIX, ProgramCache, default_cache

PROGRAM = """
import sys, numpy as np, pierian as tf
graph = tf.Graph()
with graph.as_default():
    x = tf.placeholder(tf.float32, [None, 33], name="x")
    w = tf.Variable(np.linspace(-1, 1, 33 * 50, dtype=np.float32).reshape(33, 50), name="w")
    y = tf.softmax(tf.matmul(x, w) + tf.constant(np.arange(50, dtype=np.float32)))
    g = tf.gradients(tf.reduce_sum(y * y), [w])[0]
with tf.Session(graph, threads=2) as session:
    data = np.random.default_rng(0).standard_normal((4000, 33)).astype(np.float32)
    results = session.run([y, g], {x: data})
    again = session.run([y], {x: data[:7]})
sys.stdout.buffer.write(b"".join(r.tobytes() for r in [*results, *again]))
sys.stderr.write("llvmlite" if "libllvmlite" in open("/proc/self/maps").read() else "no compiler")
"""


def process(folder: Path | str) -> tuple[bytes, str]:
    environment = dict(os.environ, PIERIAN_CACHE=str(folder), PIERIAN_VERIFY="0")
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True)
    return done.stdout, done.stderr.decode()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("PIERIAN_CACHE", str(place))
    return place


def small(scale: float = 2.0) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder("float32", [4], name="x")
        y = tf.tanh(x * scale)
    with tf.Session(graph, threads=1) as session:
        return session.run(y, {x: np.ones(4, np.float32)})


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def test_a_second_process_gives_the_same_bits_without_the_compiler(tmp_path: Path) -> None:
    off, compiled = process("off")
    first, also_compiled = process(tmp_path / "cache")
    second, loaded = process(tmp_path / "cache")
    assert compiled == also_compiled == "llvmlite" and loaded == "no compiler"
    assert off == first == second
    assert len(files(tmp_path / "cache")) == 3  # two programs and the thread pool


def test_other_constants_and_options_are_other_programs(folder: Path) -> None:
    assert not np.array_equal(small(2.0), small(3.0))
    assert len(files(folder)) == 2
    np.testing.assert_array_equal(small(2.0), small(2.0))
    assert len(files(folder)) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_what_is_not_whole_is_compiled_again(folder: Path, damage: str) -> None:
    wanted = small()
    (path,) = files(folder)
    content = path.read_bytes()
    middle = len(content) // 2
    changed = {
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
        "foreign": b"\x7fELF" + content,
    }[damage]
    path.write_bytes(changed)
    assert ProgramCache(folder, 1 << 30).entries(verify=True)[0].problem
    np.testing.assert_array_equal(small(), wanted)
    assert path.read_bytes() == content


def test_every_mutation_of_an_entry_is_noticed(folder: Path) -> None:
    small()
    (path,) = files(folder)
    content = path.read_bytes()
    store = ProgramCache(folder, 1 << 30)
    for at in range(0, len(content), max(1, len(content) // 200)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :])
        assert store.load(path.name.removesuffix(SUFFIX)) is None


def test_a_folder_others_can_write_to_is_not_used(folder: Path) -> None:
    small()
    key = files(folder)[0].name.removesuffix(SUFFIX)
    folder.chmod(0o777)
    assert ProgramCache(folder, 1 << 30).load(key) is None
    folder.chmod(0o700)
    assert ProgramCache(folder, 1 << 30).load(key) is not None


def test_what_was_used_longest_ago_goes_first(folder: Path) -> None:
    for number in range(4):
        small(1.0 + number)
    paths = files(folder)
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    size = sum(path.stat().st_size for path in paths[2:])
    assert ProgramCache(folder, size).prune() == 2
    assert files(folder) == sorted(paths[2:])


def test_writing_keeps_the_bound_and_sweeps_up(folder: Path) -> None:
    small()
    (path,) = files(folder)
    left, fresh = folder / f".{path.name}.left", folder / f".{path.name}.fresh"
    for name in (left, fresh):
        name.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    key = path.name.removesuffix(SUFFIX)
    stored = ProgramCache(folder, 1 << 30).load(key)
    assert stored is not None
    size = path.stat().st_size
    store = ProgramCache(folder, 5 * size)
    for number in range(64):
        store.store(f"{number % 16:x}{number:039x}", stored)
        assert sum(one.stat().st_size for one in files(folder)) <= (5 + 16) * size
    assert not left.exists() and fresh.exists()


def test_many_processes_write_at_once(tmp_path: Path) -> None:
    environment = dict(os.environ, PIERIAN_CACHE=str(tmp_path / "cache"), PIERIAN_NUM_THREADS="1")
    program = "import sys; sys.path.insert(0, sys.argv[1]); import test_cache as t; print(t.small().tobytes().hex())"
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(4)]
    results = {process.communicate()[0] for process in running}
    assert len(results) == 1 and all(process.returncode == 0 for process in running)
    assert [entry.problem for entry in ProgramCache(tmp_path / "cache", 1 << 30).entries(verify=True)] == [""]
    assert not list((tmp_path / "cache").glob(".*"))


def test_many_writers_at_once(folder: Path) -> None:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(small())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and all(np.array_equal(one, results[0]) for one in results)
    assert [entry.problem for entry in ProgramCache(folder, 1 << 30).entries(verify=True)] == [""]


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PIERIAN_CACHE", str(tmp_path / "file" / "below"))
    assert small() is not None
    monkeypatch.setenv("PIERIAN_CACHE", "off")
    assert default_cache() is None


def test_errors_of_sizes_name_the_same_line_from_disk(folder: Path) -> None:
    messages = []
    for _ in range(2):
        graph = tf.Graph()
        with graph.as_default():
            x, y = tf.placeholder("float32", [None], name="x"), tf.placeholder("float32", [None], name="y")
            z = x + y
        with tf.Session(graph, threads=1) as session, pytest.raises(tf.FeedError) as caught:
            session.run(z, {x: np.ones(3, np.float32), y: np.ones(4, np.float32)})
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "test_cache.py" in messages[0]
    assert len(files(folder)) == 1


def test_the_command(folder: Path) -> None:
    small()
    small(3.0)
    runner = CliRunner()
    key = files(folder)[0].name.removesuffix(SUFFIX)
    listed = runner.invoke(cli, ["cache", "list"])
    assert listed.exit_code == 0 and key in listed.output and "2 programs" in listed.output
    assert "nothing is kept" not in listed.output
    assert runner.invoke(cli, ["cache", "verify"]).exit_code == 0
    files(folder)[0].write_bytes(b"broken")
    broken = runner.invoke(cli, ["cache", "verify"])
    assert broken.exit_code == 1
    # A process, whose exit code scripts look at.
    command = [sys.executable, "-m", "pierian.cli.main", "cache", "verify"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIERIAN_CACHE": str(folder)})
    assert done.returncode == 1 and "not whole" in done.stdout
    folder.chmod(0o777)
    assert "written to by others: nothing is kept" in runner.invoke(cli, ["cache", "list"]).output
    folder.chmod(0o700)
    assert "removed 2 entries" in runner.invoke(cli, ["cache", "prune", "--to", "0"]).output
    assert not files(folder)


def test_the_fingerprint_follows_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pierian.compiler

    before = cache_module.compiler_fingerprint.__wrapped__()
    (tmp_path / "new.py").write_text("")
    monkeypatch.setattr(pierian.compiler, "__path__", [*pierian.compiler.__path__, str(tmp_path)])
    assert cache_module.compiler_fingerprint.__wrapped__() != before
