"""The payload of a constant: an immutable array compared by content."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from pierian.compiler.dtype import as_dtype
from pierian.compiler.shape import TensorType


class Constant:
    """An array as an attribute: C-contiguous, read-only, equal and hashed by type, shape and bits."""

    __slots__ = ("_digest", "array", "type")

    def __init__(self, array: Any) -> None:
        held = np.asarray(array)
        dtype = as_dtype(held.dtype)
        if not (held.flags.c_contiguous and not held.flags.writeable and held.flags.owndata):
            held = np.array(held, order="C", copy=True)
            held.flags.writeable = False
        self.array: np.ndarray[Any, Any] = held
        self.type = TensorType(dtype, held.shape)
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """A hash of the bytes; short arrays are their own."""
        if self._digest is None:
            raw = self.array.tobytes() if self.array.nbytes <= 64 else None
            self._digest = raw if raw is not None else hashlib.blake2b(self.array.data, digest_size=32).digest()
        return self._digest

    @property
    def is_scalar(self) -> bool:
        return self.array.ndim == 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.type == other.type and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.type, self.digest))

    def __repr__(self) -> str:
        if self.array.size == 1:
            return f"Constant({self.type}, {self.array.reshape(()).item()!r})"
        return f"Constant({self.type})"
