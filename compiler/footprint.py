"""How much memory a compiled graph takes, known before it runs: numbers, or formulas in its sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pierian.compiler.codegen.abi import KernelCode
from pierian.compiler.codegen.entry import workspace_parts
from pierian.compiler.cost import bytes_of
from pierian.compiler.dim import Dim, evaluate, symbols
from pierian.compiler.errors import ArgumentError
from pierian.compiler.frozen import frozen
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.program import Program
from pierian.compiler.shape import TensorType
from pierian.compiler.state import Signature


@frozen
class Footprint:
    """Bytes by what they are for.

    Attributes:
        inputs: arrays the caller hands in; results: arrays handed back.
        variables: the arrays of variables that are read or assigned.
        second_arrays: those of variables that cannot be updated in place.
        constants: the program's data.
        temporaries: values between kernels, as the memory plan lays them over each other.
        shared: what the threads that work on one kernel leave for each other, for the kernel that needs most.
        scratch: what each thread needs for itself.
    """

    inputs: Dim
    results: Dim
    variables: Dim
    second_arrays: Dim
    constants: Dim
    temporaries: Dim
    shared: Dim
    scratch: Dim

    def workspace(self, threads: int) -> Dim:
        """What a run takes beyond the arrays of its arguments."""
        return self.temporaries + self.shared + self.scratch * threads

    def peak(self, threads: int) -> Dim:
        """Everything that is there at once while the graph runs."""
        arrays = self.inputs + self.results + self.variables + self.second_arrays + self.constants
        return arrays + self.workspace(threads)


def footprint(program: Program, signature: Signature, codes: Mapping[Kernel, KernelCode]) -> Footprint:
    """The memory of a program whose kernels have been emitted."""
    shared, scratch = workspace_parts(program, codes)
    variables = dict([*signature.reads, *signature.assigns])
    outputs = program.outputs[len(signature.fetches) :]
    twice = [type_ for name, (_, type_) in zip(outputs, signature.assigns, strict=True) if name not in program.in_place]
    constants = [program.buffers[name] for name in program.constants]
    return Footprint(
        _total(type_ for _, type_ in signature.feeds),
        _total(type_ for _, type_ in signature.fetches),
        _total(variables.values()),
        _total(twice),
        _total(TensorType(buffer.dtype, buffer.shape) for buffer in constants),
        program.workspace,
        shared,
        scratch,
    )


def _total(types: Iterable[TensorType]) -> Dim:
    return sum(map(bytes_of, types), 0)


def at_sizes(size: Dim, sizes: Mapping[str, int]) -> Dim:
    """A size with the values of its symbols put in; itself where none are given.

    Raises:
        ArgumentError: only some of its symbols have values.
    """
    if not sizes or isinstance(size, int):
        return size
    missing = sorted(symbols(size) - sizes.keys())
    if missing:
        raise ArgumentError(f"size {missing[0]!r} has no value", expected=f"--size {missing[0]}=NUMBER")
    return evaluate(size, dict(sizes))
