"""LLVM's assembler and code generator, called through the C functions of llvmlite's library.

llvmlite's Python layer is left out: importing it takes longer than loading the library, and it holds one lock around every call, so
that nothing would compile beside anything else. The functions used here need no lock. What they touch is reached from their
arguments: a context, a module in it, a target machine; each call of `emit` has a context and a module of its own, and each `Emitter`
belongs to one thread. LLVM's own parallel users (ORC's concurrent compiler, the ThinLTO back ends) rest on the same rule. What LLVM
keeps for the whole process is set up once, under a lock (`_library`), or guarded by LLVM. These functions have had the same
signatures in llvmlite since its first release for LLVM 14.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import sys
import threading
from typing import TYPE_CHECKING

from pierian.compiler.errors import LoweringError
from pierian.compiler.forks import lock_across_forks
from pierian.compiler.options import verification_is_asked

if TYPE_CHECKING:
    from pierian.compiler.target.features import Target

# Vectors are explicit, so no IR passes run; code generation at this level is enough.
LEVEL = 2
_FLAW = "emitted LLVM IR is malformed; this is a flaw of the compiler"
_LOCK = lock_across_forks()
_FILE = {"win32": "llvmlite.dll", "darwin": "libllvmlite.dylib"}.get(sys.platform, "libllvmlite.so")
_POINTER, _TEXT, _WORD = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
_OUT = ctypes.POINTER(_POINTER)  # takes a string that LLVMPY_DisposeString frees
_NATIVE = ("NativeTarget", "NativeAsmPrinter")
_ALL = ("AllTargetInfos", "AllTargets", "AllTargetMCs", "AllAsmPrinters")
# Functions that take long let other threads of Python run meanwhile. The others keep Python's lock: a thread that gives it away for
# microseconds may wait 5 ms until a busy one lets it go on.
_LONG = {"ParseAssembly", "VerifyModule", "TargetMachineEmitToMemory"}
_SIGNATURES = {
    "ContextCreate": (_POINTER, ()),
    "ContextDispose": (None, (_POINTER,)),
    "ParseAssembly": (_POINTER, (_POINTER, _TEXT, _OUT)),
    "VerifyModule": (ctypes.c_bool, (_POINTER, _OUT)),
    "DisposeModule": (None, (_POINTER,)),
    "GetTargetFromTriple": (_POINTER, (_TEXT, _OUT)),
    # target, triple, processor, features, level, relocation model, code model, comments, for a JIT, name of the ABI
    "CreateTargetMachine": (
        _POINTER,
        (_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_int, _TEXT, _TEXT, ctypes.c_int, ctypes.c_int, _TEXT),
    ),
    "DisposeTargetMachine": (None, (_POINTER,)),
    "TargetMachineEmitToMemory": (_POINTER, (_POINTER, _POINTER, ctypes.c_int, _OUT)),
    "GetBufferStart": (_POINTER, (_POINTER,)),
    "GetBufferSize": (_WORD, (_POINTER,)),
    "DisposeMemoryBuffer": (None, (_POINTER,)),
    "DisposeString": (None, (_POINTER,)),
    "GetHostCPUFeatures": (ctypes.c_int, (_OUT,)),
    "GetHostCPUName": (None, (_OUT,)),
    "GetProcessTriple": (None, (_OUT,)),
    **{f"Initialize{name}": (None, ()) for name in (*_NATIVE, *_ALL)},
}


def preload() -> None:
    """Load LLVM in the background: a process that is going to compile has other things to do meanwhile.

    This processor is asked for, and a function without content compiled: the pages and tables of the code generator are then there,
    which are 4 ms of the first module.
    """

    def load() -> None:
        from pierian.compiler.target.features import host  # features import this module

        with contextlib.suppress(LoweringError, OSError):  # whoever compiles is told
            target = host()
            Emitter(target).emit(f'target triple = "{target.triple}"\ndefine void @nothing() {{\n ret void\n}}\n')

    threading.Thread(target=load, name="pierian-llvm").start()  # no daemon: a process must not end within LLVM


class Emitter:
    """LLVM's code generator for a target, for the use of one thread at a time.

    Args:
        target: the machine to compile for.
        level: how much is done for fast code, 0 to 3.

    Raises:
        LoweringError: LLVM has no such target.
    """

    def __init__(self, target: Target, level: int = LEVEL) -> None:
        self._library = _library()
        self._machine = 0
        with _LOCK:  # another thread may be making targets known that this one would find half done
            found = self._find(target.triple)
            self._machine = self._library.LLVMPY_CreateTargetMachine(
                found, target.triple.encode(), target.cpu.encode(), target.features.encode(), level, b"pic", b"default",
                0, 0, b"",
            )  # fmt: skip

    def _find(self, triple: str) -> int:
        message = _POINTER()
        found = self._library.LLVMPY_GetTargetFromTriple(triple.encode(), ctypes.byref(message))
        if not found:
            _taken(self._library, message)
            _initialize_all(self._library)
            found = self._library.LLVMPY_GetTargetFromTriple(triple.encode(), ctypes.byref(message))
        if not found:
            raise LoweringError("LLVM has no such target", got=triple, advice=_taken(self._library, message))
        return int(found)

    def emit(self, text: str, as_object: bool = True) -> bytes:
        """The object file, or the assembly, of a module's text. Others may run while LLVM works.

        `PIERIAN_VERIFY=1` has LLVM check the module first: its code generator trusts what it is given, and may end the process.

        Raises:
            LoweringError: the text is no LLVM IR, or no valid one where that is checked.
        """
        library = self._library
        context = library.LLVMPY_ContextCreate()
        message = _POINTER()
        try:
            module = library.LLVMPY_ParseAssembly(context, text.encode(), ctypes.byref(message))
            if not module:
                raise LoweringError(_FLAW, got=_taken(library, message))
            try:
                if verification_is_asked() and library.LLVMPY_VerifyModule(module, ctypes.byref(message)):
                    raise LoweringError(_FLAW, got=_taken(library, message))
                _taken(library, message)
                buffer = library.LLVMPY_TargetMachineEmitToMemory(
                    self._machine, module, int(as_object), ctypes.byref(message)
                )
            finally:
                library.LLVMPY_DisposeModule(module)
            if not buffer:
                raise LoweringError("LLVM cannot generate code for this", got=_taken(library, message))
            content = ctypes.string_at(library.LLVMPY_GetBufferStart(buffer), library.LLVMPY_GetBufferSize(buffer))
            library.LLVMPY_DisposeMemoryBuffer(buffer)
            return content
        finally:
            library.LLVMPY_ContextDispose(context)

    def __del__(self) -> None:
        if self._machine:
            self._library.LLVMPY_DisposeTargetMachine(self._machine)


def host_triple() -> str:
    """The triple of this process."""
    return _string("GetProcessTriple")


def host_cpu() -> str:
    """LLVM's name of this processor."""
    return _string("GetHostCPUName")


def host_features() -> dict[str, bool]:
    """What this processor can do, by LLVM's names, in order."""
    words = [word for word in _string("GetHostCPUFeatures").split(",") if word]
    return {word[1:]: word[0] == "+" for word in sorted(words, key=lambda word: word[1:])}


# --- the library ---------------------------------------------------------------------------------------------------


def _library() -> ctypes.CDLL:
    with _LOCK:  # lru_cache alone would let two threads load it at once
        return _load()


@functools.lru_cache(maxsize=1)
def _load() -> ctypes.CDLL:
    package = importlib.util.find_spec("llvmlite")
    if package is None or not package.origin:
        raise LoweringError("compiling needs llvmlite", advice="pip install llvmlite")
    library = _opened(os.path.join(os.path.dirname(package.origin), "binding", _FILE))
    for name, (result, parameters) in _SIGNATURES.items():
        kind = ctypes.CFUNCTYPE if name in _LONG else ctypes.PYFUNCTYPE
        setattr(library, f"LLVMPY_{name}", kind(result, *parameters)((f"LLVMPY_{name}", library)))
    for name in _NATIVE:
        getattr(library, f"LLVMPY_Initialize{name}")()
    return library


def _opened(path: str) -> ctypes.CDLL:
    """A library, while other threads of Python go on: loading LLVM takes 6 ms, during which ctypes by itself lets nobody run."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a C library without it
            load = ctypes.CDLL(None).dlopen
            load.restype, load.argtypes = _POINTER, (_TEXT, ctypes.c_int)
            handle = load(path.encode(), os.RTLD_NOW)
            if handle:
                return ctypes.CDLL(path, handle=handle)
    return ctypes.CDLL(path)


def _initialize_all(library: ctypes.CDLL) -> None:
    for name in _ALL:
        getattr(library, f"LLVMPY_Initialize{name}")()


def _string(name: str) -> str:
    library, out = _library(), _POINTER()
    getattr(library, f"LLVMPY_{name}")(ctypes.byref(out))
    return _taken(library, out)


def _taken(library: ctypes.CDLL, out: ctypes.c_void_p) -> str:
    """A string of LLVM's, freed."""
    if not out.value:
        return ""
    text = ctypes.string_at(out.value).decode()
    library.LLVMPY_DisposeString(out)
    out.value = None
    return text
