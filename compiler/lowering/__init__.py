"""From a portable graph to a Program: kernels, buffers, steps and where the bytes lie."""

from pierian.compiler.lowering.program import lower

__all__ = ["lower"]
