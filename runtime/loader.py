"""Linked code in this process's memory: written, its addresses filled in, then made executable and no longer writable."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pierian.compiler.errors import ExecutionError

if TYPE_CHECKING:
    from pierian.compiler.codegen.link import LinkedCode

_LOADING = threading.Lock()
_READ, _EXECUTE = 1, 4


class Code(Protocol):
    """Native code in memory."""

    def address(self, symbol: str) -> int:
        """Where a function lies."""
        ...


class MappedCode:
    """A linked block in pages of its own. They stay mapped while this object lives."""

    def __init__(self, linked: LinkedCode) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._symbols = linked.symbols
        self._memory = mmap.mmap(-1, max(len(linked.content), 1))
        self._memory[: len(linked.content)] = linked.content
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for place, name, value in linked.fixups:
            address = ctypes.cast(library[name], ctypes.c_void_p).value if name else self._start + value
            self._memory[place : place + 8] = (address or 0).to_bytes(8, "little")
        if linked.data and library.mprotect(
            ctypes.c_void_p(self._start), ctypes.c_size_t(linked.data), _READ | _EXECUTE
        ):
            raise ExecutionError("the system does not let code be made executable", got=f"error {ctypes.get_errno()}")

    def address(self, symbol: str) -> int:
        return self._start + self._symbols[symbol]


class EngineCode:
    """Object files linked by LLVM's own engine, for targets that `pierian.compiler.codegen.link` does not know."""

    def __init__(self, objects: Sequence[bytes]) -> None:
        import llvmlite.binding as llvm

        with _LOADING:
            empty = llvm.parse_assembly("")
            machine = llvm.Target.from_default_triple().create_target_machine()
            self._engine: Any = llvm.create_mcjit_compiler(empty, machine)
            for content in objects:
                self._engine.add_object_file(llvm.ObjectFileRef.from_data(content))
            self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        found: int = self._engine.get_function_address(symbol)
        return found


def load(objects: Sequence[bytes], linked: LinkedCode | None) -> Code:
    """Code ready to be called: the linked block, or object files where there is none."""
    return MappedCode(linked) if linked is not None else EngineCode(objects)
