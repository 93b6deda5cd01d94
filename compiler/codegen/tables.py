"""Elements of constant tables, one per lane: from memory, or for short tables from registers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pierian.compiler.codegen.writer import FunctionWriter, Value, constant, lanes_of, mangle, vector
from pierian.compiler.dtype import DType


def lookup(writer: FunctionWriter, table: Sequence[float], index: Value, dtype: DType) -> Value:
    """Element number `index` (i64, in range) of a table that becomes a constant of the module."""
    element = dtype.llvm
    entries = _entries(table, element)
    name = f"@table_{hashlib.sha256(entries.encode()).hexdigest()[:16]}"
    writer.declarations.add(f"{name} = private unnamed_addr constant [{len(table)} x {element}] [{entries}]")
    lanes = lanes_of(index.type)
    places = writer.emit(f"getelementptr {element}, ptr {name}, {index}", vector("ptr", lanes))
    if lanes == 1:
        return writer.load(places, element, dtype.itemsize)
    type_ = vector(element, lanes)
    mask, align = constant(True, "i1", lanes), Value(str(dtype.itemsize), "i32")
    return writer.call(
        f"llvm.masked.gather.{mangle(type_)}.{mangle(places.type)}",
        type_,
        [places, align, mask, constant(0, element, lanes)],
    )


def pick(writer: FunctionWriter, table: Sequence[float], index: Value, dtype: DType) -> Value:
    """Element number `index` (i32) modulo the length of a table, 16 or 32: permutations of registers where the machine has them."""
    shape = (writer.isa, lanes_of(index.type), dtype.bits)
    if shape in _PERMUTATIONS:
        return _permuted(writer, table, index, dtype)
    if shape == ("neon", 4, 32):
        return _by_bytes(writer, table, index)
    within = writer.op("and", index, constant(len(table) - 1, "i32", lanes_of(index.type)))
    return lookup(writer, table, writer.cast("zext", within, vector("i64", lanes_of(index.type))), dtype)


# How many registers one permutation reads, and its name, by instruction set, lanes and bits of an element.
_PERMUTATIONS = {
    ("avx512", 16, 32): (2, "llvm.x86.avx512.vpermi2var.ps.512"),
    ("avx512", 8, 32): (2, "llvm.x86.avx512.vpermi2var.ps.256"),
    ("avx2", 8, 32): (1, "llvm.x86.avx2.permps"),
}


def _permuted(writer: FunctionWriter, table: Sequence[float], index: Value, dtype: DType) -> Value:
    """Permutations of parts of the table; bits of the index that these ignore choose between two of them."""
    lanes = lanes_of(index.type)
    registers, name = _PERMUTATIONS[writer.isa, lanes, dtype.bits]
    if len(table) > registers * lanes:
        half = len(table) // 2
        low, high = (_permuted(writer, part, index, dtype) for part in (table[:half], table[half:]))
        bit = writer.op("and", index, constant(half, "i32", lanes))
        return writer.select(writer.cmp("icmp eq", bit, constant(0, "i32", lanes)), low, high)
    type_ = vector(dtype.llvm, lanes)
    parts = [Value(f"<{_entries(table[at : at + lanes], dtype.llvm)}>", type_) for at in range(0, len(table), lanes)]
    if len(parts) == 1 and registers == 2:
        return writer.call("llvm.x86.avx512.permvar.sf.512", type_, [parts[0], index])
    return writer.call(name, type_, [parts[0], index, *parts[1:]])


def _by_bytes(writer: FunctionWriter, table: Sequence[float], index: Value) -> Value:
    """Four floats of a table of 16 in four registers, byte by byte; a byte past the table gives 0, so that a longer table is as many
    of these, joined."""
    within = writer.op("and", index, constant(len(table) - 1, "i32", 4))
    places = writer.op("mul", within, constant(0x04040404, "i32", 4))
    places = writer.cast("bitcast", writer.op("add", places, constant(0x03020100, "i32", 4)), "<16 x i8>")
    found: Value | None = None
    for at in range(0, len(table), 16):
        parts = [Value(f"<{_entries(table[one : one + 4], 'float')}>", "<4 x float>") for one in range(at, at + 16, 4)]
        bytes_ = [writer.cast("bitcast", part, "<16 x i8>") for part in parts]
        shifted = writer.op("sub", places, constant(4 * at, "i8", 16)) if at else places
        one = writer.call("llvm.aarch64.neon.tbl4.v16i8", "<16 x i8>", [*bytes_, shifted])
        found = one if found is None else writer.op("or", found, one)
    assert found is not None
    return writer.cast("bitcast", found, "<4 x float>")


def _entries(table: Sequence[float], element: str) -> str:
    return ", ".join(str(constant(float(entry), element)) for entry in table)
