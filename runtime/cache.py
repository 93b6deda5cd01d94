"""Compiled programs on disk, so that a second process starts without compiling.

An entry is a file named by a key: a hash of the closed graph, the options, the processor, and this compiler with the LLVM it uses.
It holds what a call needs - linked code, sizes, checks, constants - and a checksum. Entries are written beside their final place and
renamed, so that processes may write at once; a file that is not whole is as good as none. Files are data: they are parsed, never
evaluated. Their code is run, so the folder must belong to the user, and nobody else may write to it.

`PIERIAN_CACHE` names another folder, or turns the cache off with `off`. `PIERIAN_CACHE_MB` bounds its size (default 512).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import platform
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pierian.compiler.codegen.link import LinkedCode
from pierian.compiler.dim import parse_dim
from pierian.compiler.dtype import as_dtype
from pierian.compiler.errors import FormatError, PierianError
from pierian.compiler.frozen import frozen
from pierian.compiler.graph.digest import graph_digest
from pierian.compiler.graph.files import write_atomically
from pierian.compiler.graph.graph import Graph
from pierian.compiler.kernel.program import Program, ProgramBuffer
from pierian.compiler.options import CompileOptions

if TYPE_CHECKING:
    from pierian.compiler.compile import Compiled

MAGIC = b"PIERIAN2"
SUFFIX = ".program"
# Constants beyond this are not copied to disk: reading them again would cost what compiling does.
LARGEST_CONSTANTS = 64 << 20
# Bytes of an entry that may be added without looking at the size of all.
SMALL = 1 << 20
# Seconds after which a file that is being written is nobody's any more.
ABANDONED = 3600
_CHECKSUM = 32
# What reading a file that is not a whole entry of this form raises.
UNREADABLE = (OSError, PierianError, ValueError, KeyError, TypeError, struct.error)


@frozen
class Stored:
    """What an entry holds, in the place of an image and a program.

    Attributes:
        name: prefix of the entry point's symbols.
        light: True where every kernel runs on the calling thread and soon returns.
        linked: the code.
        constants: the program's data, in order.
        interface: inputs, outputs, sizes and checks; no steps.
    """

    name: str
    light: bool
    linked: LinkedCode
    constants: list[Any]
    interface: Program
    objects: tuple[bytes, ...] = ()


@frozen
class Entry:
    """A file of the cache, for people.

    Attributes:
        key: what names it.
        bytes: its size.
        used: seconds since the epoch when it was last written or read.
        problem: why it cannot be used; empty for a good one.
    """

    key: str
    bytes: int
    used: float
    problem: str = ""


class ProgramCache:
    """The entries of a folder.

    Args:
        folder: where; made when first written to.
        limit: bytes that all entries together may take.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def load(self, key: str) -> Stored | None:
        """The entry of a key; None without one that is whole."""
        path = self.folder / f"{key}{SUFFIX}"
        try:
            if not self._is_private():
                return None
            content = path.read_bytes()
            found = _parse(content)
        except FileNotFoundError:
            return None
        except UNREADABLE:
            with contextlib.suppress(OSError):
                path.unlink()  # not whole, or of another form: it would be in the way for ever
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # what is used stays
        return found

    def store(self, key: str, stored: Stored) -> None:
        """Write an entry; a folder that cannot be written to is no error."""
        if sum(array.nbytes for array in stored.constants) > LARGEST_CONSTANTS:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._is_private():
                content = _content(stored)
                # Readers check every byte: waiting for the disk would buy nothing.
                write_atomically(self.folder / f"{key}{SUFFIX}", content, sync=False)
                # Looking through the folder costs more than a small entry; one in sixteen pays for the others.
                if len(content) > SMALL or key[:1] == "0":
                    self.prune()

    def entries(self, verify: bool = False) -> list[Entry]:
        """All entries, those used last first; with `verify` each is read and checked."""
        found = []
        for path in self._paths():
            with contextlib.suppress(OSError):
                status = path.stat()
                problem = _problem(path) if verify else ""
                found.append(Entry(path.name.removesuffix(SUFFIX), status.st_size, status.st_mtime, problem))
        return sorted(found, key=lambda entry: -entry.used)

    def prune(self, limit: int | None = None) -> int:
        """Remove what was used longest ago until the rest takes at most `limit` bytes; how many entries that were."""
        room = self.limit if limit is None else limit
        removed = 0
        for entry in self.entries():
            room -= entry.bytes
            if room < 0:
                self.remove(entry.key)
                removed += 1
        self._sweep()
        return removed

    def _sweep(self) -> None:
        """Remove what writers have left that were killed on the way."""
        for path in self.folder.glob(f".*{SUFFIX}.*") if self.folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - ABANDONED:
                    path.unlink()

    def complaint(self) -> str:
        """Why no program is written to the folder, as the end of a sentence that begins with it; empty where that is possible."""
        if not self.folder.exists():
            return ""
        if not self.folder.is_dir():
            return "is not a folder"
        if not self._is_private():
            return "may be written to by others"
        return "" if os.access(self.folder, os.W_OK) else "cannot be written to"

    def remove(self, key: str) -> None:
        """Remove an entry."""
        with contextlib.suppress(OSError):
            (self.folder / f"{key}{SUFFIX}").unlink()

    def _paths(self) -> Iterator[Path]:
        return self.folder.glob(f"*{SUFFIX}") if self.folder.is_dir() else iter(())

    def _is_private(self) -> bool:
        """Whether only this user can have written what lies in the folder."""
        status = self.folder.stat()
        mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        return mine and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def default_cache() -> ProgramCache | None:
    """The cache that the environment asks for; None where it is off."""
    named = os.environ.get("PIERIAN_CACHE", "")
    if named.lower() in ("off", "0", "none"):
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(named) if named else (Path(base) if base else Path.home() / ".cache") / "pierian"
    text = os.environ.get("PIERIAN_CACHE_MB", "")
    return ProgramCache(folder, (int(text) if text.isdigit() else 512) << 20)


def program_key(graph: Graph, options: CompileOptions, updates: Sequence[tuple[int, int | None]] = ()) -> str:
    """The key of a closed graph, some of whose results replace variables (see `Signature.updates`)."""
    return key_of(repr((options, tuple(updates))).encode(), graph_digest(graph))


def key_of(*parts: bytes) -> str:
    """The key of what this compiler makes of something on this processor."""
    hasher = hashlib.blake2b(digest_size=20)
    for part in (compiler_fingerprint(), processor(), *parts):
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.hexdigest()


@functools.lru_cache(maxsize=1)
def compiler_fingerprint() -> bytes:
    """Changes with any file of the compiler and with LLVM."""
    import pierian.compiler

    hasher = hashlib.blake2b(digest_size=16)
    stack = [Path(folder) for folder in pierian.compiler.__path__]
    while stack:
        for one in sorted(os.scandir(stack.pop()), key=lambda entry: entry.name):
            if one.is_dir() and one.name != "__pycache__":
                stack.append(Path(one.path))
            elif one.name.endswith(".py"):
                status = one.stat()
                hasher.update(f"{one.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    llvm = importlib.util.find_spec("llvmlite")
    if llvm is not None and llvm.origin:
        version = os.stat(Path(llvm.origin).with_name("_version.py"))
        hasher.update(f"llvmlite {version.st_size} {version.st_mtime_ns}".encode())
    return hasher.digest()


@functools.lru_cache(maxsize=1)
def processor() -> bytes:
    """What code generation looks at: the processor's name and abilities, and its caches."""
    from pierian.compiler.target.machine import cache_sizes

    wanted = ("model name", "flags", "Features", "CPU part")
    lines = []
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(wanted):
                lines.append(line)
            if not line.strip():
                break
    return f"{platform.machine()} {platform.system()} {cache_sizes()} {''.join(lines)}".encode()


def stored_form(compiled: Compiled) -> Stored | None:
    """What of a compiled graph goes to disk; None where the target's code cannot."""
    image = compiled.image
    if image.linked is None:
        return None
    return Stored(image.name, image.light, image.linked, list(image.constants), compiled.program)


# --- the file ------------------------------------------------------------------------------------------------------


def _content(stored: Stored) -> bytes:
    """magic, length of the header, header (JSON), code, constants, checksum."""
    program, linked = stored.interface, stored.linked
    header = {
        "name": stored.name,
        "light": stored.light,
        "data": linked.data,
        "length": len(linked.content),
        "symbols": linked.symbols,
        "fixups": linked.fixups,
        "dims": program.dims,
        "inputs": [_describe(program.buffers[name]) for name in program.inputs],
        "outputs": [_describe(program.buffers[name]) for name in program.outputs],
        "in_place": program.in_place,
        "checks": [[str(first), str(second), reason] for first, second, reason in program.checks],
        "constants": [[str(array.dtype), list(array.shape)] for array in stored.constants],
    }
    text = json.dumps(header).encode()
    parts = [MAGIC, struct.pack("<Q", len(text)), text, linked.content]
    parts += [np.ascontiguousarray(array).tobytes() for array in stored.constants]
    body = b"".join(parts)
    return body + hashlib.blake2b(body, digest_size=_CHECKSUM).digest()


def _describe(buffer: ProgramBuffer) -> list[Any]:
    return [buffer.name, str(buffer.dtype), [str(dim) for dim in buffer.shape]]


def _parse(content: bytes) -> Stored:
    body, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    if body[: len(MAGIC)] != MAGIC or hashlib.blake2b(body, digest_size=_CHECKSUM).digest() != checksum:
        raise FormatError("a cached program is not whole")
    (length,) = struct.unpack_from("<Q", body, len(MAGIC))
    at = len(MAGIC) + 8
    header = json.loads(body[at : at + length])
    at += length
    fixups = tuple((int(place), str(name), int(value)) for place, name, value in header["fixups"])
    linked = LinkedCode(body[at : at + header["length"]], int(header["data"]), dict(header["symbols"]), fixups)
    at += header["length"]
    constants = []
    for name, shape in header["constants"]:
        array = np.frombuffer(body, as_dtype(name).numpy, int(np.prod(shape, dtype=np.int64)), at).reshape(shape)
        constants.append(array)
        at += array.nbytes
    return Stored(str(header["name"]), bool(header["light"]), linked, constants, _interface(header))


def _interface(header: dict[str, Any]) -> Program:
    program = Program(str(header["name"]), dims=tuple(header["dims"]))
    for kind, names in (("input", program.inputs), ("output", program.outputs)):
        for position, (name, dtype, shape) in enumerate(header[f"{kind}s"]):
            dims = tuple(parse_dim(dim) for dim in shape)
            program.buffers[name] = ProgramBuffer(name, kind, as_dtype(dtype), dims, position)
            names.append(name)
    program.in_place = {str(new): str(old) for new, old in header["in_place"].items()}
    program.checks = [(parse_dim(first), parse_dim(second), reason) for first, second, reason in header["checks"]]
    return program


def _problem(path: Path) -> str:
    try:
        _parse(path.read_bytes())
    except UNREADABLE as error:
        return str(error) or type(error).__name__
    return ""
