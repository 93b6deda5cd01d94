"""Cutting a program's functions into LLVM modules, so that they compile beside one another.

A module takes kernels, in the program's order, until it holds `MODULE` characters of text. Where the cuts are follows from the
program alone, and so does every byte of the objects, however many threads compile them. A function that several kernels call (a
microkernel, an elementary function) is defined in the first module that needs it; the others declare it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pierian.compiler.codegen.abi import KernelCode
from pierian.compiler.codegen.functions import definitions
from pierian.compiler.target.features import Target
from pierian.compiler.target.llvm import LEVEL

# LLVM takes about 0.8 us for a character of such text, and 2 ms for each module however small: a module of this size is some 25 ms.
MODULE = 32 << 10


class ModuleWriter:
    """Puts functions into modules and hands over the text of each when it is full.

    Args:
        target: the machine to compile for.
        submit: takes a module's text and the level of optimization.
        whole: whether all is one module, as in an object file of its own, whose functions nobody outside sees.
    """

    def __init__(self, target: Target, submit: Callable[[str, int], None], whole: bool = False) -> None:
        self._target = target
        self._submit = submit
        self._whole = whole
        self._parts: list[str] = []
        self._declarations: set[str] = set()
        self._size = 0
        self._shared: dict[str, str] = {}  # how a shared function that has been defined is declared
        self._here: set[str] = set()  # shared functions defined in this module

    def kernel(self, code: KernelCode) -> None:
        """A kernel's functions and those that it shares with others."""
        elementary, needed = definitions(code.declarations, self._target.isa)
        self._declarations |= needed
        for name, text in [*elementary, *code.functions]:
            if name not in self._shared:
                self._shared[name] = _declaration(text)
                self._here.add(name)
                self._add(self._visible(text))
            elif name not in self._here:
                self._declarations.add(self._shared[name])
        text = code.text
        for phase in code.phases:
            text = self._visible(text, f"void @{phase.function}(")
        self._add(text)
        if self._size >= MODULE and not self._whole:
            self.finish()

    def end_kernels(self) -> None:
        """There are no more kernels: the last of them compile while the entry is being written."""
        if not self._whole:
            self.finish()

    def entry(self, text: str, codes: Iterable[KernelCode]) -> None:
        """The functions that launch kernels, in a module of their own, compiled without optimization: kernels take the time of a
        program, and this straight code would take as long as they do to compile."""
        if not self._whole:
            functions = {phase.function for code in codes for phase in code.phases}
            self._declarations |= {f"declare hidden void @{name}(ptr, i64, i64, ptr)" for name in functions}
        self._add(text)
        self.finish(LEVEL if self._whole else 0)

    def finish(self, level: int = LEVEL) -> None:
        """Hand over what has not been."""
        if self._parts:
            self._submit(module_text("\n".join([*self._parts, *sorted(self._declarations)]), self._target), level)
        self._parts, self._declarations, self._size = [], set(), 0
        self._here.clear()

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)

    def _visible(self, text: str, function: str = "") -> str:
        """Text whose functions, or the one named, can be called from other modules."""
        return text if self._whole else text.replace(f"define internal {function}", f"define hidden {function}")


def module_text(text: str, target: Target) -> str:
    """Text as a whole module: target line first, each declaration once."""
    first, *rest = f'target triple = "{target.triple}"\n{text}\n!0 = !{{i32 1}}\n'.split("\ndeclare ")
    parts, seen = [first], set()
    for piece in rest:  # what follows a declaration runs up to the next one
        line, end, following = piece.partition("\n")
        parts.append(following if line in seen else f"declare {line}{end}{following}")
        seen.add(line)
    return "\n".join(parts)


def _declaration(text: str) -> str:
    header = next(line for line in text.split("\n") if line.startswith("define "))
    return header.replace("define internal ", "declare hidden ", 1).removesuffix(" {")
