"""Reading rows of a few elements, one behind the other, as one vector for each place in a row."""

from __future__ import annotations

from collections.abc import Sequence

from pierian.compiler.codegen.evaluate import Scope
from pierian.compiler.codegen.interleave import repeat, separate
from pierian.compiler.codegen.loops.plan import loads_of_rows
from pierian.compiler.codegen.scalars import to_register
from pierian.compiler.codegen.writer import Value, i64, vector
from pierian.compiler.kernel.nodes import Axis, Kernel
from pierian.compiler.kernel.scalar import Scalar, load_parts


def sorted_rows(
    kernel: Kernel, column: Scope, values: Sequence[Scalar], short: Axis, along: str
) -> dict[Scalar, list[Value]]:
    """For each load in `values` that walks whole rows along an axis its vectors, one for each place in a row."""
    writer, lanes = column.writer, column.frame.lanes
    first = Scope(column.frame, column, {short.name: i64(0)})
    assert isinstance(short.extent, int)
    found = {}
    for load in loads_of_rows(kernel, values, along, short):
        name, indices = load_parts(load)
        dtype = column.frame.buffers[name].dtype
        start = first.place(name, indices)
        type_ = vector(dtype.llvm, lanes)
        lines = []
        for number in range(short.extent):
            at = writer.gep(start, dtype.llvm, i64(number * lanes))
            if column.mask is None:
                lines.append(writer.load(at, type_, dtype.itemsize))
                continue
            mask = repeat(writer, column.mask, short.extent, number)
            lines.append(writer.masked_load(at, type_, dtype.itemsize, mask))
        found[load] = [to_register(writer, line, dtype) for line in separate(writer, lines)]
    return found
