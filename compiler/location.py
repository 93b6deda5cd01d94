"""Where in the user's program a node was made.

Capturing is cheap (a frame walk to the first frame outside this package, storing the code object and
the instruction offset); the line number is resolved only when somebody reads it.
"""

from __future__ import annotations

import sys
from types import CodeType

_PACKAGE = __name__.partition(".")[0]
_INSIDE = _PACKAGE + "."


class Location:
    """One place in a program, or several when a rewrite merged nodes.

    A captured location holds a code object and an instruction offset; one read from a file holds the
    file name and line directly.
    """

    __slots__ = ("_code", "_file", "_lasti", "_line", "parts")

    def __init__(self, file: str = "", line: int = 0, parts: tuple[Location, ...] = ()) -> None:
        self._code: CodeType | None = None
        self._lasti = 0
        self._file = file
        self._line = line
        self.parts = parts

    @property
    def file(self) -> str:
        """The file name of the first place."""
        if self.parts:
            return self.parts[0].file
        return self._code.co_filename if self._code is not None else self._file

    @property
    def line(self) -> int:
        """The line number (from 1) of the first place; 0 when unknown."""
        if self.parts:
            return self.parts[0].line
        if self._code is not None:
            self._line = _line_of(self._code, self._lasti)
            self._file = self._code.co_filename
            self._code = None
        return self._line

    def leaves(self) -> tuple[Location, ...]:
        """The single places this location stands for."""
        if not self.parts:
            return (self,)
        return tuple(leaf for part in self.parts for leaf in part.leaves())

    def __repr__(self) -> str:
        return f"Location({describe(self)})"


def capture() -> Location:
    """The place of the innermost frame outside this package."""
    frame = sys._getframe(1)
    while True:
        module = frame.f_globals.get("__name__", "")
        outer = frame.f_back
        if outer is None or not (module.startswith(_INSIDE) or module == _PACKAGE):
            break
        frame = outer
    location = Location()
    location._code = frame.f_code
    location._lasti = frame.f_lasti
    return location


def union(locations: list[Location | None]) -> Location | None:
    """The location of a node that replaces several: all their places, each once, first seen first."""
    leaves: dict[tuple[str, int], Location] = {}
    for location in locations:
        if location is None:
            continue
        if not location.parts and len(locations) == 1:
            return location
        for leaf in location.leaves():
            leaves.setdefault((leaf.file, leaf.line), leaf)
    found = list(leaves.values())
    if not found:
        return None
    return found[0] if len(found) == 1 else Location(parts=tuple(found[:8]))


def describe(location: Location | None) -> str:
    """`file:line`, several separated by commas; empty when unknown."""
    if location is None:
        return ""
    return ", ".join(f"{leaf.file}:{leaf.line}" for leaf in location.leaves() if leaf.line or leaf.file)


def _line_of(code: CodeType, lasti: int) -> int:
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno
