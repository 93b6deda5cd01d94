"""Linear regression of exam scores on hours of study, trained by Adam; a plot, and the graph as a file.

    python examples/student_scores.py --output results

Writes `student_scores.png`, and the training graph as `student_scores.pb` for `pierian show`, `dump`, `run` and `compile`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

import pierian as tf

DATA = Path(__file__).resolve().parent / "data" / "student_scores.csv"


def read() -> tuple[np.ndarray, np.ndarray]:
    """Hours and scores of 25 students."""
    with DATA.open() as file:
        rows = list(csv.DictReader(file))
    hours = np.array([row["Hours"] for row in rows], dtype=np.float32)
    return hours, np.array([row["Scores"] for row in rows], dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    hours, scores = read()

    graph = tf.Graph("student_scores")
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["students"], name="hours")
        y = tf.placeholder(tf.float32, ["students"], name="scores")
        intercept = tf.Variable([1.0], name="intercept")
        slope = tf.Variable([10.0], name="slope")
        predicted = intercept + slope * x
        loss = tf.keras.losses.mse(y, predicted)
        train = tf.keras.optimizers.Adam(0.5).minimize(loss, var_list=[intercept, slope])
        graph.set_outputs([predicted, loss], ["predicted", "loss"])
    graph.save(options.output / "student_scores.pb")

    losses = []
    with tf.Session(graph) as session:
        step = session.make_callable([loss, train], [x, y])
        for number in range(options.steps):
            losses.append(float(step(hours, scores)[0]))
            if number % 10 == 0:
                print(f"step {number:3}  loss {losses[-1]:.4f}")
        a, b = session.run([intercept, slope])
        final = session.run(loss, {x: hours, y: scores})
    print(f"score = {a[0]:.4f} + {b[0]:.4f} * hours, mean squared error {final:.4f}")
    plot(options.output / "student_scores.png", hours, scores, float(a[0]), float(b[0]), losses)
    print(f"wrote {options.output / 'student_scores.png'} and {options.output / 'student_scores.pb'}")


def plot(path: Path, hours: np.ndarray, scores: np.ndarray, a: float, b: float, losses: list[float]) -> None:
    """The data with the fitted line, and the loss by step."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    left.scatter(hours, scores, label="students")
    ends = np.array([hours.min(), hours.max()])
    left.plot(ends, a + b * ends, color="tab:red", label=f"{a:.2f} + {b:.2f} x")
    left.set(xlabel="hours of study", ylabel="score", title="Scores")
    left.legend()
    right.plot(losses)
    right.set(xlabel="step", ylabel="mean squared error", yscale="log", title="Training")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
