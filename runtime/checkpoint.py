"""Variables to and from safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pierian.compiler.errors import FormatError
from pierian.compiler.graph.files import write_atomically

Array = np.ndarray[Any, Any]


def save(path: str | Path, values: Mapping[str, Array]) -> None:
    """Write arrays by name. The file is complete or not there: written beside, synced, then renamed."""
    from safetensors.numpy import save as serialize

    content = serialize({name: np.asarray(array, order="C") for name, array in values.items()})
    write_atomically(Path(path), content)


def load(path: str | Path) -> dict[str, Array]:
    """Read arrays by name. Executes nothing.

    Raises:
        FormatError: the file is missing, truncated or malformed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise FormatError("the checkpoint cannot be read", where=str(path), got=str(error)) from None
