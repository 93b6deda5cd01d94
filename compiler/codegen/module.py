"""A program to object code: every distinct kernel once, the entry point, and LLVM's code generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pierian.compiler.codegen.abi import KernelCode
from pierian.compiler.codegen.binding import emit_binding
from pierian.compiler.codegen.emission import Emission
from pierian.compiler.codegen.entry import emit_entry
from pierian.compiler.codegen.kernels import emit_kernel
from pierian.compiler.codegen.link import LinkedCode, link_if_known
from pierian.compiler.codegen.modules import ModuleWriter, module_text
from pierian.compiler.codegen.threads import pool_text
from pierian.compiler.kernel.nodes import Kernel
from pierian.compiler.kernel.program import Loop, Program, launch_counts
from pierian.compiler.target.features import Target
from pierian.compiler.target.llvm import Emitter


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
    texts: list[str] = []
    with Emission(target) as emission:

        def submit(text: str, level: int) -> None:
            texts.append(text)
            emission.add(text, level)

        kernels = _write(program, target, name, ModuleWriter(target, submit), profile=profile, binding=True)
        objects = emission.objects()
    constants = [program.buffers[constant].data for constant in program.constants]
    light = _is_light(program, kernels)
    return Image(name, objects, target, light, kernels, texts, constants, link_if_known(objects))


def program_text(program: Program, target: Target, name: str, extra: str) -> str:
    """LLVM IR of the kernels, the entry point and `extra` as one module; only functions of `extra` can be seen from outside."""
    texts: list[str] = []
    writer = ModuleWriter(target, lambda text, _: texts.append(text), whole=True)
    _write(program, target, name, writer, linkage="internal ", extra=extra)
    return texts[0]


def _write(
    program: Program, target: Target, name: str, modules: ModuleWriter, *, linkage: str = "", profile: bool = False,
    binding: bool = False, extra: str = "",
) -> dict[Kernel, tuple[str, KernelCode]]:  # fmt: skip
    """Every distinct kernel once, then what launches them."""
    kernels = emit_kernels(program, target, name, modules.kernel)
    modules.end_kernels()
    codes = {kernel: code for kernel, (_, code) in kernels.items()}
    entry = emit_entry(program, name, codes, linkage, profile)
    modules.entry(entry + extra + (emit_binding(program, name, codes) if binding else ""), codes.values())
    return kernels


def emit_kernels(
    program: Program, target: Target, name: str = "pierian", take: Callable[[KernelCode], None] = lambda code: None
) -> dict[Kernel, tuple[str, KernelCode]]:
    """Each distinct kernel of a program with its name and code; `take` is given each code when it is there."""
    kernels: dict[Kernel, tuple[str, KernelCode]] = {}
    for kernel, runs in launch_counts(program.steps).items():
        kernel_name = f"{name}_k{len(kernels)}"
        kernels[kernel] = (kernel_name, emit_kernel(kernel, kernel_name, target, runs))
        take(kernels[kernel][1])
    return kernels


def pool_object(target: Target) -> bytes:
    """The thread pool as an object file of its own. It waits more than it computes: compiled without optimization, in a fifth of the
    time."""
    return Emitter(target, level=0).emit(module_text(pool_text(target.triple.partition("-")[0]), target))


def _is_light(program: Program, kernels: dict[Kernel, tuple[str, KernelCode]]) -> bool:
    if len(program.steps) > 64 or any(isinstance(step, Loop) for step in program.steps):
        return False
    return all(phase.serial for _, code in kernels.values() for phase in code.phases)


def to_object(text: str, target: Target) -> bytes:
    """Object code of LLVM IR. No IR passes run: vectors are explicit, code generation is enough."""
    return Emitter(target).emit(text)


def to_assembly(text: str, target: Target) -> str:
    """Assembly of LLVM IR."""
    return Emitter(target).emit(text, as_object=False).decode()
