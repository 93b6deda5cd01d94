"""Whole programs, those of `benchmarks/`: equal to the bit whatever the number of threads, in every process, compiled or read from
disk; and as near to the truth as NumPy's float32."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import accuracy  # noqa: E402
import workloads  # noqa: E402

CASES = {
    f"{workload}/{name}": case
    for attribute in ("CASES", "CHECKS")
    for workload, cases in workloads.load(attribute=attribute).items()
    for name, case in cases.items()
}
QUICK = {
    "w01_tiny_step/const", "w01_tiny_step/feed", "w05_matmul/sq64", "w05_matmul/sq128", "w14_graph_scale/n100",
    "w16_calls/session", "w16_calls/run", "w16_calls/function", "w16_calls/eager",
}  # fmt: skip
SLACK = 1.25
"""Sums of equal length cut at other places differ by this much."""
ALLOWANCE = {
    # Each element is a sum of 784 products, in chains of 256. The reference adds 64 at a time, and often fewer.
    "w15_conv/7x7s2_3_64_224_gradient": 1.6,
}
"""How many times NumPy's error we have where that is more than the slack: to become smaller, never larger."""

PROGRAM = """
import sys
sys.path[:0] = {path!r}
import test_workloads as tests
for name in {names!r}:
    print(name, tests.digest(tests.compute(name)))
"""


def marked(name: str) -> Any:
    return pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)


def compute(name: str) -> list[Any]:
    """What a case gives, compiled anew."""
    case = CASES[name]
    return workloads.results(case, case.peers["pierian"](case.inputs()))


def digest(results: list[Any]) -> str:
    """Equal for results that are equal to the bit."""
    found = hashlib.sha256()
    for one in results:
        found.update(f"{one.dtype}{one.shape}".encode())
        found.update(one.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", [marked(name) for name in CASES])
def test_bits_and_accuracy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2, 3 and 8 threads give the same bits, and these are near the truth.

    How near: the root mean square error is at most NumPy's (see SLACK and ALLOWANCE), the largest at most twice that of NumPy
    (the extreme of many roundings is a matter of luck), and what is below a unit in the last place counts as exact. Losses of
    several training steps in a row show rounding magnified; the gradients are compared instead.
    """
    monkeypatch.setenv("PIERIAN_CACHE", str(tmp_path))  # compiled once
    case = CASES[name]
    found: dict[int, list[Any]] = {}
    for threads in (1, 2, 3, 8):
        monkeypatch.setenv("BENCH_THREADS", str(threads))
        found[threads] = compute(name)
    assert len({digest(results) for results in found.values()}) == 1

    given = case.inputs()
    right = as_list(case.reference(**workloads.widened(given)))
    ours = accuracy.errors(found[1], right)
    assert ours["max_error"] <= case.tolerance
    if case.calls == 1:
        plain = accuracy.errors(as_list(case.reference(**given)), right)
        exact = 2.0 ** (-52 if case.wide else -23)
        factor = ALLOWANCE.get(name, SLACK)
        assert ours["rms_error"] <= max(exact, factor * plain["rms_error"]), (ours, plain)
        assert ours["max_error"] <= max(exact, 2 * factor * plain["max_error"]), (ours, plain)


@pytest.mark.parametrize(
    "workload", [pytest.param(w, marks=() if w == "w01_tiny_step" else pytest.mark.slow) for w in workloads.load()]
)
def test_processes(workload: str, tmp_path: Path) -> None:
    """Another process gives the same bits, with nothing on disk, writing programs there, and reading them."""
    names = [name for name in CASES if name.startswith(f"{workload}/")]

    def process(cache: str, threads: int) -> dict[str, str]:
        environment = dict(os.environ, PIERIAN_CACHE=cache, BENCH_THREADS=str(threads), PIERIAN_VERIFY="0")
        program = PROGRAM.format(path=[str(Path(__file__).parent), str(BENCHMARKS)], names=names)
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return dict(line.split() for line in done.stdout.splitlines())

    nothing = process("off", 1)
    assert nothing.keys() == set(names)
    assert nothing == process(str(tmp_path), 2) == process(str(tmp_path), 3)


def as_list(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (list, tuple)) else [results]
