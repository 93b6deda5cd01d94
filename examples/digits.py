"""A multi-layer perceptron on scikit-learn's 8x8 digits: training with a progress bar, accuracy, a checkpoint, restored.

python examples/digits.py --output results
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.progress import track
from sklearn.datasets import load_digits

import pierian as tf

LAYERS = (64, 128, 64, 10)


def build(seed: int) -> tuple[tf.Graph, dict]:
    """Logits, loss, accuracy and a training step as one graph."""
    rng = np.random.default_rng(seed)
    graph = tf.Graph("digits")
    with graph.as_default():
        x = tf.placeholder(tf.float32, ["batch", LAYERS[0]], name="images")
        labels = tf.placeholder(tf.int64, ["batch"], name="labels")
        variables = []
        h = x
        for number, (m, n) in enumerate(zip(LAYERS, LAYERS[1:], strict=False)):
            with tf.name_scope(f"layer{number}"):
                w = tf.Variable((rng.standard_normal((m, n)) * (2 / m) ** 0.5).astype(np.float32), name="w")
                b = tf.Variable(np.zeros(n, np.float32), name="b")
                h = tf.matmul(h, w) + b
                if n != LAYERS[-1]:
                    h = tf.nn.relu(h)
                variables += [w, b]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=h))
        accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(h, axis=1), labels), tf.float32))
        train = tf.keras.optimizers.Adam(2e-3).minimize(loss, var_list=variables)
        graph.set_outputs([tf.softmax(h)], ["probabilities"])
    return graph, {"x": x, "labels": labels, "loss": loss, "accuracy": accuracy, "train": train}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    images, labels = (data.data / 16).astype(np.float32), data.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    split = 1437
    graph, at = build(seed=1)
    graph.save(options.output / "digits.pb")
    checkpoint = str(options.output / "digits.safetensors")
    test = {at["x"]: images[split:], at["labels"]: labels[split:]}

    rng = np.random.default_rng(2)
    with tf.Session(graph) as session:
        step = session.make_callable([at["loss"], at["train"]], [at["x"], at["labels"]])
        for _ in track(range(options.epochs), description="training"):
            shuffled = rng.permutation(split)
            for start in range(0, split, 64):
                batch = shuffled[start : start + 64]
                loss = step(images[batch], labels[batch])[0]
        before = session.run(at["accuracy"], test)
        session.save(checkpoint)
    with tf.Session(graph) as fresh:
        untrained = fresh.run(at["accuracy"], test)
        fresh.restore(checkpoint)
        after = fresh.run(at["accuracy"], test)
    print(f"last loss {loss:.4f}; test accuracy {before:.4f}")
    print(f"a new session: {untrained:.4f} untrained, {after:.4f} restored from {checkpoint}")
    if after != before:
        raise SystemExit("the restored model differs")


if __name__ == "__main__":
    main()
