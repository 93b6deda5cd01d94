"""How each peer is set up: threads, arrays in and out without copies, compiled variants of one function. One module each."""

from __future__ import annotations

import os

PACKAGES = {
    "pierian": "pierian",
    "numpy": "numpy",
    "torch": "torch",
    "torch_compile": "torch",
    "jax": "jax",
    "numba": "numba",
    "tf_function": "tensorflow",
    "tf_xla": "tensorflow",
    "tf1": "tensorflow",
    "tf_eager": "tensorflow",
    "ort": "onnxruntime",
    "openvino": "openvino",
}
"""The package that each peer needs."""


def threads() -> int:
    """How many threads a peer may use in this process."""
    return int(os.environ.get("BENCH_THREADS", "1"))
