"""Which rule did what: the engine's record, for `explain` and for tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pierian.compiler.location import Location, describe


@dataclass(frozen=True, slots=True)
class Entry:
    """One rewrite: the rule, the node it replaced, and the user's lines of all nodes that matched."""

    rule: str
    node: str
    location: Location | None

    def __str__(self) -> str:
        place = describe(self.location)
        return f"{self.rule}: {self.node}" + (f" ({place})" if place else "")


@dataclass(slots=True)
class Journal:
    """The rewrites of one run, in order."""

    entries: list[Entry] = field(default_factory=list)

    def note(self, rule: str, node: str, location: Location | None) -> None:
        """Add a rewrite."""
        self.entries.append(Entry(rule, node, location))

    def counts(self) -> dict[str, int]:
        """How often each rule applied, most often first."""
        return dict(Counter(entry.rule for entry in self.entries).most_common())

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))
