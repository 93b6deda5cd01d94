"""Object files to one relocatable block of memory, so that code can be kept in a file and run without LLVM.

Only what our own code generator writes is understood: ELF for x86-64, code and data sections, calls and addresses relative to the
instruction, addresses in data. What needs an absolute address, known only where the block is put, is left to a list of fix-ups.

Source: System V ABI, AMD64 supplement, chapter 4 (object files, relocation).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pierian.compiler.errors import LoweringError
from pierian.compiler.frozen import frozen

PAGE = 4096
_ALLOC, _WRITE, _EXECUTE = 0x2, 0x1, 0x4
_NOBITS, _RELA, _SYMTAB = 8, 4, 2
_HIDDEN = 2
_ABSOLUTE_64, _PC32, _PLT32 = 1, 2, 4
_GOT = (9, 41, 42)  # GOTPCREL, GOTPCRELX, REX_GOTPCRELX
_JUMP = b"\xff\x25"  # jmp *[rip + distance]


@frozen
class LinkedCode:
    """A block of code and data.

    Attributes:
        content: the bytes; from `data` on they are data, before that code. `data` is a multiple of the page size.
        symbols: where functions begin, by name.
        fixups: places of 8 bytes that take an address: of the block's byte `value` where `name` is empty, else of the C library's
            function `name`.
    """

    content: bytes
    data: int
    symbols: dict[str, int]
    fixups: tuple[tuple[int, str, int], ...]


def link_if_known(objects: Sequence[bytes]) -> LinkedCode | None:
    """`link` for object files it understands; None for those of other targets, which LLVM's engine links when they are loaded."""
    return link(objects) if _is_known(objects) else None


def _is_known(objects: Sequence[bytes]) -> bool:
    return all(content[:6] == b"\x7fELF\x02\x01" and content[16:20] == b"\x01\x00\x3e\x00" for content in objects)


def link(objects: Sequence[bytes]) -> LinkedCode:
    """One block of several object files.

    Raises:
        LoweringError: a kind of relocation, or a symbol twice, that our code generator does not write.
    """
    return _Linker([_Object(content) for content in objects]).link()


@frozen
class _Section:
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


@frozen
class _Symbol:
    name: str
    section: int
    value: int
    is_global: bool
    is_hidden: bool


class _Object:
    """A parsed object file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        (table,) = struct.unpack_from("<Q", content, 40)
        size, count = struct.unpack_from("<HH", content, 58)
        self.sections = []
        for number in range(count):
            _, kind, flags, _, offset, length, link, info, align, _ = struct.unpack_from(
                "<IIQQQQIIQQ", content, table + number * size
            )
            self.sections.append(_Section(kind, flags, offset, length, link, info, max(align, 1)))
        self.symbols: list[_Symbol] = []
        for section in self.sections:
            if section.kind == _SYMTAB:
                names = self.sections[section.link].offset
                for at in range(section.offset, section.offset + section.size, 24):
                    name, info, other, index, value, _ = struct.unpack_from("<IBBHQQ", content, at)
                    end = content.index(b"\0", names + name)
                    text = content[names + name : end].decode()
                    self.symbols.append(_Symbol(text, index, value, info >> 4 != 0, other & 3 == _HIDDEN))

    def bytes_of(self, section: _Section) -> bytes:
        """The content of a section."""
        if section.kind == _NOBITS:
            return bytes(section.size)
        return self.content[section.offset : section.offset + section.size]


class _Linker:
    def __init__(self, objects: list[_Object]) -> None:
        self.objects = objects
        self.content = bytearray()
        self.places: dict[tuple[int, int], int] = {}  # (object, section) -> offset
        self.symbols: dict[str, int] = {}
        self.hidden: set[str] = set()  # of no meaning outside the block
        self.slots: dict[tuple[str, int], int] = {}  # what an address slot holds -> its offset
        self.stubs: dict[str, int] = {}
        self.fixups: list[tuple[int, str, int]] = []

    def link(self) -> LinkedCode:
        self._place(_EXECUTE)
        outside = sorted(self._outside())
        for name in outside:  # a jump through a slot, for calls that reach 2 GB only
            self.stubs[name] = self._append(_JUMP + bytes(4), 8)
        self._append(b"", PAGE)
        data = len(self.content)
        self._place(0)
        self._define()
        for name in outside:
            stub = self.stubs[name]
            self._put(stub + 2, self._slot(name, 0) - (stub + 6), "<i")
        for number, one in enumerate(self.objects):
            for section in one.sections:
                if section.kind == _RELA and (number, section.info) in self.places:
                    self._relocate(number, section)
        symbols = {name: place for name, place in self.symbols.items() if name not in self.hidden}
        return LinkedCode(bytes(self.content), data, symbols, tuple(self.fixups))

    def _append(self, content: bytes, align: int) -> int:
        self.content += bytes(-len(self.content) % align)
        place = len(self.content)
        self.content += content
        return place

    def _place(self, wanted: int) -> None:
        for number, one in enumerate(self.objects):
            for index, section in enumerate(one.sections):
                if section.flags & _ALLOC and section.flags & _EXECUTE == wanted and section.size:
                    self.places[number, index] = self._append(one.bytes_of(section), section.align)

    def _outside(self) -> set[str]:
        known = {s.name for one in self.objects for s in one.symbols if s.section and s.is_global}
        return {s.name for one in self.objects for s in one.symbols if not s.section and s.name} - known

    def _define(self) -> None:
        for number, one in enumerate(self.objects):
            for symbol in one.symbols:
                if symbol.is_global and symbol.section:
                    if symbol.name in self.symbols:
                        raise LoweringError("a symbol is defined twice", got=symbol.name)
                    self.symbols[symbol.name] = self.places[number, symbol.section] + symbol.value
                    if symbol.is_hidden:
                        self.hidden.add(symbol.name)

    def _slot(self, name: str, value: int) -> int:
        """The place of 8 bytes that hold an address when the code runs."""
        found = self.slots.get((name, value))
        if found is None:
            found = self.slots[name, value] = self._append(bytes(8), 8)
            self.fixups.append((found, name, value))
        return found

    def _put(self, place: int, value: int, form: str) -> None:
        struct.pack_into(form, self.content, place, value)

    def _relocate(self, number: int, table: _Section) -> None:
        one = self.objects[number]
        base = self.places[number, table.info]
        for at in range(table.offset, table.offset + table.size, 24):
            offset, info, addend = struct.unpack_from("<QQq", one.content, at)
            kind, symbol = info & 0xFFFFFFFF, one.symbols[info >> 32]
            place = base + offset
            target = self._target(number, symbol)
            if kind == _ABSOLUTE_64:
                if target is None:
                    self.fixups.append((place, symbol.name, 0))
                else:
                    self.fixups.append((place, "", target + addend))
            elif kind in (_PC32, _PLT32):
                end = self.stubs[symbol.name] if target is None else target
                self._put(place, end + addend - place, "<i")
            elif kind in _GOT:
                slot = self._slot(symbol.name, 0) if target is None else self._slot("", target)
                self._put(place, slot + addend - place, "<i")
            else:
                raise LoweringError("object code has a relocation that is not understood", got=kind)

    def _target(self, number: int, symbol: _Symbol) -> int | None:
        """Where a symbol lies in the block; None outside."""
        if symbol.section:
            return self.places[number, symbol.section] + symbol.value
        return self.symbols.get(symbol.name)
