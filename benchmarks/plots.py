"""Pictures of measured runs: the ratios of all cases, and where our cases lie under the roofs of the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from report import Row, others, ratio, timed
from targets import target

AHEAD, BEHIND, WANTED = "#2a7f62", "#c2553a", "#222222"
COLOURS = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]


def plot(runs: Sequence[dict[str, Any]], rows: Sequence[Row], folder: Path) -> None:
    """Write `ratios-N.png` and `roofline-N.png` for each number N of threads measured."""
    folder.mkdir(parents=True, exist_ok=True)
    for threads in sorted({row["threads"] for row in rows}):
        chosen = [row for row in rows if row["threads"] == threads]
        about = next(run for run in runs if run["threads"] == threads)
        ratios(chosen, about, folder / f"ratios-{threads}.png")
        with_roofs = [run["ceilings"] for run in runs if run["threads"] == threads and run.get("ceilings")]
        if with_roofs:
            roofline(chosen, best_of(with_roofs), about, folder / f"roofline-{threads}.png")


def short(row: Row) -> str:
    return f"{row['workload'].split('_')[0]} {row['case']}"


def title(axes: Any, text: str, about: dict[str, Any]) -> None:
    """A title, and under it what was measured on."""
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'}"
    small = f"{about['machine']['processor']}, {threads}, revision {about['revision']}"
    axes.set_title(text, fontsize=13, loc="left", pad=24)
    axes.annotate(small, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=9)


def ratios(rows: Sequence[Row], about: dict[str, Any], path: Path) -> None:
    """Best peer's time over ours as bars on a logarithmic axis, with the target and the best peer's name."""
    rows = [row for row in rows if ratio(row)]
    figure, axes = plt.subplots(figsize=(10, 1.6 + 0.27 * len(rows)), layout="constrained")
    for place, row in enumerate(rows):
        found = ratio(row) or 1.0
        axes.barh(place, found - 1, left=1, height=0.7, color=AHEAD if found >= 1 else BEHIND)
        ahead = found >= 1
        wanted = target(row["workload"], row["case"]).speed
        text = f"{found:.2f}  {others(row)[0][0]}"
        beside = wanted if ahead and wanted and found < wanted < 2 * found else found  # not across the target's mark
        axes.annotate(
            text, (beside, place), (4 if ahead else -4, 0), textcoords="offset points", va="center", fontsize=8,
            ha="left" if ahead else "right",
        )  # fmt: skip
        if wanted:
            axes.plot([wanted, wanted], [place - 0.42, place + 0.42], color=WANTED, linewidth=1.6)
    axes.set_xscale("log")
    low, high = min(ratio(row) or 1 for row in rows), max(ratio(row) or 1 for row in rows)
    axes.set_xlim(min(0.4, low * 0.45), max(4.5, high * 2))
    ticks = [
        tick
        for tick in (0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20)
        if axes.get_xlim()[0] < tick < axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.axvline(1, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [short(row) for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("best peer's time / ours (logarithmic)")
    title(axes, "Pierian beside the best peer of each case", about)
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=AHEAD), plt.Rectangle((0, 0), 1, 1, color=BEHIND),
        plt.Line2D([0], [0], color=WANTED, linewidth=1.6),
    ]  # fmt: skip
    figure.legend(handles, ["ahead", "behind", "target"], loc="outside lower center", ncols=3, fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def best_of(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best figure of several measurements of the machine."""
    return {
        **{kind: max(one[kind] for one in found) for kind in ("float32", "float64")},
        "roofs": {
            level: max(one["read"][one["roofs"][level]] for one in found) for level in ("l2", "l3", "memory")
        },
    }  # fmt: skip


def roofline(rows: Sequence[Row], roofs: dict[str, Any], about: dict[str, Any], path: Path) -> None:
    """Arithmetic operations per byte against operations per second, both logarithmic: ours as points, numbered and named at
    the side; the roofs as lines."""
    points = [
        (row["flops"] / row["bytes"], row["flops"] / timed(row)["pierian"] / 1e9, row)
        for row in rows
        if row["flops"] and row["bytes"] and "pierian" in timed(row)
    ]
    figure, axes = plt.subplots(figsize=(13, 8.5), layout="constrained")
    left, right = min(x for x, _, _ in points) / 2, max(x for x, _, _ in points) * 2
    bottom = min(y for _, y, _ in points) / 2
    top = roofs["float32"] / 1e9 * 1.8
    for kind, style in (("float32", "-"), ("float64", "--")):
        peak = roofs[kind] / 1e9
        axes.plot([left, right], [peak, peak], style, color=WANTED, linewidth=1.2)
        axes.annotate(f"{kind} {peak:.0f} GFLOP/s", (left * 1.1, peak), (0, 3), textcoords="offset points", fontsize=9)
    for (level, rate), style in zip(roofs["roofs"].items(), (":", "-.", "-"), strict=True):
        name = {"l2": "L2", "l3": "last-level cache", "memory": "memory"}[level]
        axes.plot(
            [left, right], [left * rate / 1e9, right * rate / 1e9], style, color="#777777", linewidth=1.2,
            label=f"{name}, {rate / 1e9:.0f} GB/s",
        )  # fmt: skip
    groups = list(dict.fromkeys(row["workload"] for _, _, row in points))
    names = []
    across, up = 630 / math.log(right / left), 540 / math.log(top / bottom)  # printer's points, about
    spots = [(math.log(x / left) * across, math.log(y / bottom) * up) for x, y, _ in points]
    taken = list(spots)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    for number, (x, y, row) in enumerate(points, 1):
        colour = COLOURS[groups.index(row["workload"]) % len(COLOURS)]
        axes.plot(x, y, "o", color=colour, markersize=6, markeredgecolor="white", markeredgewidth=0.6)
        axes.annotate(
            str(number), (x, y), free(spots[number - 1], taken), textcoords="offset points", fontsize=8, color=colour,
            ha="center", va="center", fontweight="bold",
        )  # fmt: skip
        percent = f", {row['peak']:.0%}" if "peak" in row else ""
        names.append(
            plt.Line2D([0], [0], marker="o", linestyle="", color=colour, label=f"{number}  {short(row)}{percent}")
        )
    axes.set_xlabel("arithmetic operations per byte that must be moved")
    axes.set_ylabel("GFLOP/s")
    axes.grid(color="#e5e5e5", linewidth=0.6)
    title(axes, "Roofline: what each case reaches, in percent of what binds it", about)
    axes.add_artist(axes.legend(loc="lower right", fontsize=9, title="reading"))
    figure.legend(handles=names, loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def free(spot: tuple[float, float], taken: list[tuple[float, float]]) -> tuple[float, float]:
    """The offset of a label from its point, all in printer's points, so that it is not too near to those before."""
    ways = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))
    for distance in (10, 15, 21, 28, 36):
        for x, y in ways:
            place = (spot[0] + distance * x, spot[1] + distance * y)
            if all(abs(place[0] - a) > 12 or abs(place[1] - b) > 8 for a, b in taken):
                taken.append(place)
                return distance * x, distance * y
    return 10.0, 0.0
