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
    """For each load in `values` that walks rows along an axis, or parts of them, its vectors, one for each point of `short`."""
    writer, lanes = column.writer, column.frame.lanes
    first = Scope(column.frame, column, {short.name: i64(0)})
    assert isinstance(short.extent, int)
    found = {}
    for load, part in loads_of_rows(kernel, values, along, short).items():
        name, indices = load_parts(load)
        dtype = column.frame.buffers[name].dtype
        start = writer.gep(first.place(name, indices), dtype.llvm, i64(-part.first))
        type_ = vector(dtype.llvm, lanes)
        lines = []
        for number in range(part.length):
            at = writer.gep(start, dtype.llvm, i64(number * lanes))
            if column.mask is None:
                lines.append(writer.load(at, type_, dtype.itemsize))
                continue
            mask = repeat(writer, column.mask, part.length, number)
            lines.append(writer.masked_load(at, type_, dtype.itemsize, mask))
        places = separate(writer, lines)
        read = [places[part.first + part.step * number] for number in range(short.extent)]
        found[load] = [to_register(writer, place, dtype) for place in read]
    return found
