"""A program to object code: every distinct kernel once, the entry point, and LLVM's code generator."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, field
from typing import Any

from pierian.compiler.codegen.abi import KernelCode
from pierian.compiler.codegen.binding import emit_binding
from pierian.compiler.codegen.entry import emit_entry
from pierian.compiler.codegen.functions import definitions
from pierian.compiler.codegen.kernels import emit_kernel
from pierian.compiler.codegen.link import LinkedCode, link_if_known
from pierian.compiler.codegen.threads import pool_text
from pierian.compiler.errors import LoweringError
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.program import Loop, Program, launches
from pierian.compiler.target.features import Target

_CODEGEN_LEVEL = 2
_LLVM = threading.Lock()  # LLVM contexts made through llvmlite are global


@dataclass(slots=True)
class Image:
    """Native code of a program.

    Attributes:
        name: prefix of the entry point's symbols.
        objects: relocatable object files.
        target: what it was compiled for.
        light: True where every kernel runs on the calling thread and soon returns.
        linked: the objects in one block; None for targets that are linked by LLVM's engine.
        kernels: each distinct kernel with its emitted code, for people.
        texts: LLVM IR by module.
        constants: the program's data, in order.
    """

    name: str
    objects: list[bytes]
    target: Target
    light: bool
    kernels: dict[Kernel, tuple[str, KernelCode]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    linked: LinkedCode | None = None

    def llvm(self) -> str:
        """LLVM IR of all modules."""
        return "\n".join(self.texts)

    def assembly(self) -> str:
        """Assembly of all modules."""
        return "\n".join(to_assembly(text, self.target) for text in self.texts)


def compile_program(program: Program, target: Target, name: str = "pierian", profile: bool = False) -> Image:
    """Native code for a program: `NAME_run`, `NAME_workspace`, and the binding functions for NumPy arrays."""
    text, kernels = program_text(program, target, name, profile=profile)
    text += emit_binding(program, name)
    constants = [program.buffers[constant].data for constant in program.constants]
    light = _is_light(program, kernels)
    objects = [to_object(text, target)]
    return Image(name, objects, target, light, kernels, [text], constants, link_if_known(objects))


def program_text(
    program: Program, target: Target, name: str, linkage: str = "", profile: bool = False
) -> tuple[str, dict[Kernel, tuple[str, KernelCode]]]:
    """LLVM IR of the kernels and the entry point."""
    kernels: dict[Kernel, tuple[str, KernelCode]] = {}
    for launch in launches(program.steps):
        if launch.kernel not in kernels:
            kernel_name = f"{name}_k{len(kernels)}"
            kernels[launch.kernel] = (kernel_name, emit_kernel(launch.kernel, kernel_name, target))
    codes = {kernel: code for kernel, (_, code) in kernels.items()}
    entry = emit_entry(program, name, codes, linkage, profile)
    declarations: set[str] = set()
    for code in codes.values():
        declarations |= code.declarations
    functions, remaining = definitions(declarations, target.isa)
    shared = dict(pair for code in codes.values() for pair in code.functions)
    body = "\n".join([functions, *shared.values(), *(code.text for code in codes.values()), entry, *sorted(remaining)])
    return body + "\n", kernels


def pool_object(target: Target) -> bytes:
    """The thread pool as an object file of its own."""
    return to_object(pool_text(target.triple.partition("-")[0]), target)


def _is_light(program: Program, kernels: dict[Kernel, tuple[str, KernelCode]]) -> bool:
    if len(program.steps) > 64 or any(isinstance(step, Loop) for step in program.steps):
        return False
    return all(phase.serial for _, code in kernels.values() for phase in code.phases)


# --- LLVM ------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _initialize() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@functools.lru_cache(maxsize=1)
def _initialize_native() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # the pool spins with an inline `pause`


@functools.lru_cache(maxsize=16)
def target_machine(target: Target, position_independent: bool = True) -> Any:
    """LLVM's code generator for a target."""
    import llvmlite.binding as llvm

    _initialize_native()
    try:
        found = llvm.Target.from_triple(target.triple)
    except RuntimeError:
        _initialize()
        found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(
        cpu=target.cpu, features=target.features, opt=_CODEGEN_LEVEL, reloc="pic" if position_independent else "default",
        codemodel="default",
    )  # fmt: skip


def prepare_text(text: str, target: Target) -> str:
    """Text as a whole module: target lines first, each declaration once."""
    seen: set[str] = set()
    lines = [f'target triple = "{target.triple}"']
    for line in text.split("\n"):
        if line.startswith("declare "):
            if line in seen:
                continue
            seen.add(line)
        lines.append(line)
    return "\n".join(lines) + "\n!0 = !{i32 1}\n"


def _parse(text: str, target: Target) -> Any:
    import llvmlite.binding as llvm

    try:
        module = llvm.parse_assembly(prepare_text(text, target))
    except RuntimeError as error:
        raise LoweringError("emitted LLVM IR is malformed; this is a flaw of the compiler", got=str(error)) from None
    module.data_layout = str(target_machine(target).target_data)
    return module


def to_object(text: str, target: Target) -> bytes:
    """Object code of LLVM IR. No IR passes run: vectors are explicit, code generation is enough."""
    with _LLVM:
        return target_machine(target).emit_object(_parse(text, target))


def to_assembly(text: str, target: Target) -> str:
    """Assembly of LLVM IR."""
    with _LLVM:
        return target_machine(target).emit_assembly(_parse(text, target))
