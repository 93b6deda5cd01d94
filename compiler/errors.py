"""The exception tree, and the one way an error is worded.

Every error of Pierian says what went wrong, where (operator, node, the user's line), what was found,
what was expected, and what to do; each part is optional, the first is not.
"""

from __future__ import annotations

from pierian.compiler.location import Location, describe


class PierianError(Exception):
    """Base of all errors raised on purpose by Pierian.

    Args:
        what: one sentence saying what is wrong.
        where: the operator, node, file place or argument at fault.
        location: the user's program line that created the node at fault.
        got: what was found.
        expected: what would have been right.
        advice: what the user can do.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        location: Location | None = None,
        got: object = None,
        expected: object = None,
        advice: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.location = location
        self.got = got
        self.expected = expected
        self.advice = advice
        super().__init__(self.render())

    def render(self) -> str:
        """The full message, one part a line."""
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        place = describe(self.location) if self.location is not None else None
        if place:
            lines.append(f"  at: {place}")
        if self.got is not None:
            lines.append(f"  got: {self.got}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.advice:
            lines.append(f"  help: {self.advice}")
        return "\n".join(lines)

    def one_line(self) -> str:
        """The message on one line, for the command line."""
        return "; ".join(part.strip() for part in self.render().splitlines())


class ShapeError(PierianError, ValueError):
    """Shapes that do not fit an operator or a feed."""


class DTypeError(PierianError, TypeError):
    """Element types that do not fit an operator or a feed."""


class ArgumentError(PierianError, ValueError):
    """An argument or attribute outside its meaning."""


class GraphError(PierianError, ValueError):
    """A graph that is not well formed, or values used outside their graph."""


class FormatError(PierianError, ValueError):
    """A file that cannot be read: truncated, malformed, too large or of a newer version."""


class GradientError(PierianError, ValueError):
    """A gradient that does not exist; says where the path breaks."""


class LoweringError(PierianError):
    """An operator or graph without native code."""


class FeedError(PierianError, ValueError):
    """Feeds or fetches that do not fit the graph of a Session."""


class ExecutionError(PierianError, RuntimeError):
    """A failure while a program runs; variables keep their values from before the run."""
