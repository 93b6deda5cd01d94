"""Words of the readable form, each with its place."""

from __future__ import annotations

import json
import re

from pierian.compiler.errors import FormatError
from pierian.compiler.frozen import frozen

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+|\#[^\n]*)
  | (?P<value>%(?:[A-Za-z_][\w./-]*|"(?:[^"\\\n]|\\.)*")(?::\d+)?)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<number>-?(?:inf\b|nan\b|\d[\w.]*(?:(?<=[eE])[+-]\d+)?))
  | (?P<word>[A-Za-z_]\w*)
  | (?P<size><[^<>\n]*>)
  | (?P<mark>[(){}\[\]=:,@*+<>-])
    """,
    re.VERBOSE,
)


@frozen
class Token:
    """A word: its kind, text, and offset in the source."""

    kind: str
    text: str
    offset: int


class Source:
    """A text with a name, for messages that point."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name

    def error(self, what: str, offset: int, **parts: object) -> FormatError:
        """An error at a place: file, line, column, and the line with a caret."""
        line = self.text.count("\n", 0, offset) + 1
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        shown = self.text[start : end if end >= 0 else None]
        column = offset - start
        first = max(0, column - 60)
        snippet = shown[first : column + 60]
        caret = " " * (column - first) + "^"
        return FormatError(
            what,
            where=f"{self.name}:{line}:{column + 1}\n    {snippet}\n    {caret}",
            **parts,  # type: ignore[arg-type]
        )


def tokenize(source: Source) -> list[Token]:
    """All words of a text.

    Raises:
        FormatError: a character that begins no word.
    """
    tokens = []
    position = 0
    text = source.text
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise source.error("unexpected character", position, got=repr(text[position]))
        assert match.lastgroup is not None
        if match.lastgroup != "space":
            tokens.append(Token(match.lastgroup, match.group(), position))
        position = match.end()
    tokens.append(Token("end", "", len(text)))
    return tokens


def unquoted(source: Source, token: Token, text: str | None = None) -> str:
    """The string a token stands for."""
    try:
        return str(json.loads(token.text if text is None else text))
    except ValueError:
        raise source.error("malformed string", token.offset) from None
