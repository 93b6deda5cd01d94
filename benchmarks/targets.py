"""The ratios to reach (best peer's time / ours, in one run), with one thread and with two."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """The ratio to reach when the compiler is complete, when it is fast, and the part of the machine's peak then."""

    spine: float | None
    speed: float | None
    peak: float | None = None


SMALL = Target(0.5, 1.0)
TARGETS = {
    "w01": Target(1.0, 2.0),
    "w02": Target(1.0, 1.5, 0.80),
    "w03": Target(0.8, 1.1, 0.85),
    "w04": Target(0.7, 1.0),
    "w04_reduce/argmax_axis1": Target(0.7, 2.0),
    "w04_reduce/cumsum_axis1": Target(None, 2.0),
    "w05": SMALL,
    "w05_matmul/sq256": Target(0.7, 1.0),
    "w05_matmul/sq512": Target(0.7, 1.0, 0.92),
    "w05_matmul/sq1024": Target(0.7, 1.0, 0.92),
    "w05_matmul/sq2048": Target(0.7, 1.0, 0.92),
    "w05_matmul/f64_512": Target(0.7, 1.0, 0.92),
    "w06": Target(0.9, 1.3),
    "w07": Target(None, 1.5),
    "w10_transformer/forward": Target(None, 1.2),
    "w10_transformer/train_step": Target(None, 1.5),
    "w11_lstm/forward": Target(None, 1.1),
    "w11_lstm/forward_backward": Target(None, 3.0),
    "w12": Target(None, 1.0),
    "w15": Target(None, 1.0),
}


def target(workload: str, case: str) -> Target:
    """That of the case, else of its workload, else none."""
    return TARGETS.get(f"{workload}/{case}", TARGETS.get(workload.split("_")[0], Target(None, None)))
