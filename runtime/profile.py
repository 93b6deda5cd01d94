"""Where a run's time goes: kernel by kernel, with the work each does, the graph's operators and the user's lines behind it.

    profile = Profile()
    session.run(loss, feeds, profile=profile)
    print(profile.table())
    profile.save_trace("trace.json")        # for chrome://tracing or Perfetto

A profiled program is compiled with a clock around every kernel, apart from the one that runs without. Work is counted from the
kernel: its arithmetic at every point, and each of its arrays once. Percentages are of what this machine was measured to do at best
(`pierian.runtime.peak`): the time that the work could not go below, by the time that it took. Kernels that several threads run
beside each other, each for rows of its own, share the time of the whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pierian.compiler.cost import Peak, kernel_bits, kernel_bytes
from pierian.compiler.dim import Dim, evaluate, substitute, symbols
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.files import write_atomically
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.program import Launch, Loop, launches
from pierian.compiler.location import describe

if TYPE_CHECKING:
    from pierian.runtime.callable import PreparedCall


@frozen
class KernelTime:
    """The measurements of one launch over a run.

    Attributes:
        label: the operators inside.
        lines: the user's lines behind them.
        kind: loop, contraction or serial.
        runs: how many times it ran; more than once inside loops.
        seconds: in all.
        start: seconds from the start of the run's first kernel to its own first start.
        flops, bytes: work of all its runs.
        bits: width of its widest floats.
    """

    label: str
    lines: str
    kind: str
    runs: int
    seconds: float
    start: float
    flops: float
    bytes: float
    bits: int = 32

    def of_peak(self, peak: Peak) -> tuple[float, str]:
        """The part of the peak it reaches, and what bounds it: arithmetic, or reading from cache or memory."""
        runs = max(self.runs, 1)
        shortest, bound = peak.shortest(self.flops / runs, self.bytes / runs, self.bits)
        return runs * shortest / max(self.seconds, 1e-9), bound


class Profile:
    """Measurements of the runs it was given to; each run replaces the one before.

    Attributes:
        kernels: launches in the order of the program.
        seconds: the whole run, what Python does around it included.
        threads: how many the session uses.
    """

    def __init__(self) -> None:
        self.kernels: list[KernelTime] = []
        self.seconds = 0.0
        self.threads = 1

    def measure(self, call: PreparedCall, feeds: tuple[Any, ...]) -> list[Any]:
        """Run a prepared call whose program was compiled for it, and take its measurements; the call's results."""
        from pierian.compiler.codegen.entry import COUNTERS, measured_steps

        executable = call.executable
        steps = measured_steps(executable.program.steps)
        if not steps:
            return call(feeds)
        counters = executable.counters(len(steps) * COUNTERS)
        counters[:] = 0
        begin = time.perf_counter()
        results = call(feeds)
        self.seconds = time.perf_counter() - begin
        self.threads = executable.threads
        sizes = executable.sizes()
        found = counters.reshape(-1, COUNTERS).tolist()
        first = min((start for _, runs, start in found if runs), default=0)
        _share_out(steps, found)
        self.kernels = [
            _kernel_time(step, measured, first, sizes)
            for step, measured in zip(steps, found, strict=True)
            if measured[1] and isinstance(step, Launch)
        ]
        return results

    def rows(self, peak: Peak | None = None) -> list[dict[str, Any]]:
        """The kernels that took longest first, as numbers and texts; with a peak the part of it that each reaches."""
        total = sum(kernel.seconds for kernel in self.kernels)
        found = []
        for kernel in sorted(self.kernels, key=lambda one: -one.seconds):
            seconds = max(kernel.seconds, 1e-9)
            row: dict[str, Any] = {
                "ms": kernel.seconds * 1e3, "share": kernel.seconds / max(total, 1e-12), "runs": kernel.runs,
                "gflops": kernel.flops / seconds / 1e9, "gbytes": kernel.bytes / seconds / 1e9, "kind": kernel.kind,
                "operators": kernel.label, "lines": kernel.lines, "flops": kernel.flops, "bytes": kernel.bytes,
            }  # fmt: skip
            if peak is not None:
                row["of_peak"], row["bound"] = kernel.of_peak(peak)
            found.append(row)
        return found

    def table(self, peak: Peak | None = None) -> str:
        """`rows` as text."""
        from rich.console import Console
        from rich.table import Table

        total = sum(kernel.seconds for kernel in self.kernels)
        title = f"{milliseconds(total)} ms in kernels of {milliseconds(self.seconds)} ms, threads: {self.threads}"
        table = Table(title=title, title_justify="left", caption=describe_peak(peak), caption_justify="left")
        columns = ["ms", "share", "runs", "GFLOP/s", "GB/s", *(["of peak", "bound"] if peak else [])]
        for column in (*columns, "kind", "operators", "lines"):
            right = column in columns and column != "bound"
            table.add_column(column, justify="right" if right else "left", no_wrap=right)
        for row in self.rows(peak):
            reached = [f"{100 * row['of_peak']:.0f} %", row["bound"]] if peak else []
            table.add_row(
                milliseconds(row["ms"] / 1e3), f"{100 * row['share']:.1f} %", str(row["runs"]), f"{row['gflops']:.2f}",
                f"{row['gbytes']:.2f}", *reached, row["kind"], row["operators"], row["lines"],
            )  # fmt: skip
        console = Console(width=160)
        with console.capture() as captured:
            console.print(table)
        return captured.get()

    def trace(self) -> dict[str, Any]:
        """Chrome's trace format: one event for each kernel; those inside loops with the time of all their runs."""
        events = [
            {
                "name": kernel.label, "cat": kernel.kind, "ph": "X", "pid": 0, "tid": 0, "ts": kernel.start * 1e6,
                "dur": kernel.seconds * 1e6,
                "args": {"lines": kernel.lines, "runs": kernel.runs, "flops": kernel.flops, "bytes": kernel.bytes},
            }
            for kernel in self.kernels
        ]  # fmt: skip
        names = [
            {"name": kind, "ph": "M", "pid": 0, "tid": 0, "args": {"name": name}}
            for kind, name in (("process_name", "pierian"), ("thread_name", f"kernels, threads: {self.threads}"))
        ]
        return {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}

    def save_trace(self, path: str | Path) -> None:
        """Write `trace()` as JSON, atomically."""
        write_atomically(Path(path), json.dumps(self.trace(), indent=1).encode())


def milliseconds(seconds: float) -> str:
    """A time for people: kernels may take some hundredths of a microsecond."""
    return f"{seconds * 1e3:.{3 if seconds >= 1e-4 else 5}f}"


def describe_peak(peak: Peak | None) -> str | None:
    """The figures that percentages are of, for people."""
    if peak is None:
        return None
    figures = f"{peak.flops / 1e9:.0f} GFLOP/s float32, {peak.near / 1e9:.0f} GB/s from cache, {peak.far / 1e9:.0f} GB/s from memory"
    return f"peak ({peak.source}): {figures}"


def _share_out(steps: Sequence[Launch | Loop], measured: Sequence[list[int]]) -> None:
    """Let kernels inside a parallel loop, whose times on all threads were added up, have parts of the time that it took."""
    places = {id(step): i for i, step in enumerate(steps)}
    for step, (taken, _, _) in zip(steps, measured, strict=True):
        if isinstance(step, Loop):
            inside = [measured[places[id(launch)]] for launch in launches(step.steps)]
            total = sum(nanoseconds for nanoseconds, _, _ in inside)
            for one in inside:
                one[0] = one[0] * taken // max(total, taken, 1)


def _kernel_time(launch: Any, measured: Sequence[int], first: int, sizes: dict[str, int]) -> KernelTime:
    from pierian.compiler.schedule.work import scheduled_flops
    from pierian.compiler.target.features import host

    nanoseconds, runs, start = measured
    actual = dict(zip(launch.kernel.dims, launch.dims, strict=True))

    def known(size: Dim) -> float:
        expression = substitute(size, actual)
        counters = {name: 0 for name in symbols(expression) if name not in sizes}  # of loops around: their first turn
        return float(evaluate(expression, {**sizes, **counters}))

    kernel: Kernel = launch.kernel
    return KernelTime(
        launch.label, describe(launch.location), kernel.kind, runs, nanoseconds * 1e-9, (start - first) * 1e-9,
        runs * known(scheduled_flops(kernel, host())), runs * known(kernel_bytes(kernel)), kernel_bits(kernel),
    )  # fmt: skip
