"""Pierian: a static-graph compiler for numerical Python on CPUs.

Operators come from the compiler's registry under their array-API names; TensorFlow's names for them work too. Importing the package
loads what building and running graphs needs; names of less used parts are found when first used (PEP 562), and the compiler with
LLVM is loaded when something has to be compiled.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pierian.compiler.errors import PierianError as PierianError
    from pierian.function import TensorSpec as TensorSpec
    from pierian.function import function as function
    from pierian.graph_mode import Graph as Graph
    from pierian.graph_mode import constant as constant
    from pierian.graph_mode import gradients as gradients
    from pierian.graph_mode import placeholder as placeholder
    from pierian.runtime.session import Session as Session
    from pierian.tape import GradientTape as GradientTape
    from pierian.tensor import Tensor as Tensor
    from pierian.variable import Variable as Variable

newaxis = None

# Where names come from that are not operators.
_HOMES = {
    "pierian.tensor": ("Tensor",),
    "pierian.variable": ("Variable",),
    "pierian.tape": ("GradientTape",),
    "pierian.function": ("function", "TensorSpec"),
    "pierian.graph_mode": (
        "Graph", "constant", "convert_to_tensor", "default_graph", "global_variables_initializer", "gradients", "group",
        "name_scope", "placeholder",
    ),
    "pierian.indexed": ("IndexedSlices", "tensor_scatter_nd_add", "tensor_scatter_nd_sub"),
    "pierian.control": ("cond", "while_loop", "scan"),
    "pierian.runtime.session": ("Session",),
    "pierian.runtime.profile": ("Profile",),
    "pierian.compiler.dtype": ("float32", "float64", "int32", "int64", "DType", "as_dtype"),
    "pierian.compiler.options": ("CompileOptions",),
    "pierian.compiler.errors": (
        "ArgumentError", "DTypeError", "ExecutionError", "FeedError", "FormatError", "GradientError", "GraphError",
        "LoweringError", "PierianError", "ShapeError",
    ),
}  # fmt: skip
_MODULES = ("keras", "losses", "nn", "optimizers", "random", "compiler", "runtime", "proto")

# TensorFlow's names of operators.
_ALIASES = {
    "reduce_sum": "sum", "reduce_mean": "mean", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "prod",
    "reduce_any": "any", "reduce_all": "all", "reduce_logsumexp": "logsumexp", "reduce_variance": "var",
    "reduce_std": "std", "mul": "multiply", "sub": "subtract", "div": "divide", "truediv": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "neg": "negative", "power": "pow", "transpose": "permute_dims",
    "astype": "cast", "take": "gather", "cumulative_sum": "cumsum", "cumulative_prod": "cumprod", "clip_by_value": "clip",
    "bool": "bool_", "reverse": "flip",
}  # fmt: skip

_BY_NAME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    found = _find(name)
    if found is None:
        raise AttributeError(f"module 'pierian' has no attribute {name!r}")
    globals()[name] = found
    return found


def _find(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("pierian.compiler.version").VERSION
    if name.startswith("__"):
        return None
    if name == "math":
        return importlib.import_module("pierian")
    if name in ("bool", "bool_"):
        return importlib.import_module("pierian.compiler.dtype").bool_
    if name in _MODULES:
        return importlib.import_module(f"pierian.{name}")
    home = _BY_NAME.get(name)
    # The front end registers eager mode and the default graph before anything is used.
    importlib.import_module("pierian.front")
    if home is not None:
        return getattr(importlib.import_module(home), name)
    definition = importlib.import_module("pierian.compiler.ops.definition")
    definition.load_families()
    op = definition._REGISTRY.get(_ALIASES.get(name, name))
    return op if op is not None and op.public else None


def __dir__() -> list[str]:
    from pierian.compiler.ops.definition import all_operators

    return sorted({*globals(), *_BY_NAME, *_MODULES, *_ALIASES, *(op.name for op in all_operators() if op.public)})


def _load() -> None:
    """What every program uses."""
    importlib.import_module("pierian.front")
    importlib.import_module("pierian.runtime.session")
    importlib.import_module("pierian.compiler.ops.definition").load_families()


_load()
