"""The counts of a storm, and the broken promises."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

MUST_BE_ZERO = {
    "lies": "wrong or truncated answers that looked complete",
    "wrong narinfos": "narinfos that say something untrue",
    "false absences": "404 for what an upstream has",
    "false presences": "200 for paths that no upstream has",
    "failed though healthy": "requests that failed although a healthy upstream had the object",
    "hung": "answers in which nothing came for a minute",
    "internal errors": "answers with status 500, and answers that are not HTTP",
    "resume refused": "Range requests on a cut NAR that got no 206, without wrong bytes before",
    "unhealed": "objects that could not be had at the end, with healthy origins",
    "wrong bytes stored": "stored NARs that are not what their name and row say",
    "rows without bytes": "rows that promise bytes that are not there",
    "bytes without row": "stored NARs without a row, at the end",
    "excess downloads": "whole transfers that no kill, damage or fault explains",
    "leaked descriptors": "descriptors after idling, above baseline and database",
    "leaked threads": "threads after idling, above what the pools may hold",
    "leaked spools": "unfinished files after idling",
    "tracebacks": "unexpected errors in the log",
    "bad exits": "ends after SIGTERM with another exit code than 0, and starts that failed",
}
"""Broken promises, and the meaning of each."""


@define
class Score:
    """Counts by name; those of `MUST_BE_ZERO` have details."""

    counts: Counter[str] = field(factory=Counter)
    details: list[str] = field(factory=list)

    def add(self, name: str, number: int = 1) -> None:
        """Add to a count."""
        self.counts[name] += number

    def most(self, name: str, number: int) -> None:
        """Keep the largest value of a count."""
        self.counts[name] = max(self.counts[name], number)

    def blame(self, name: str, detail: str, number: int = 1) -> None:
        """Count a broken promise."""
        assert name in MUST_BE_ZERO, name
        self.counts[name] += number
        if number:
            self.details.append(f"{name}: {detail}")

    @property
    def broken(self) -> dict[str, int]:
        """Return the broken promises."""
        return {name: self.counts[name] for name in MUST_BE_ZERO if self.counts[name]}

    def table(self) -> str:
        """Return all counts, one on each line."""
        ordinary = sorted(set(self.counts) - set(MUST_BE_ZERO))
        rows = [(name, self.counts[name], "") for name in ordinary]
        rows += [(name, self.counts[name], meaning) for name, meaning in MUST_BE_ZERO.items()]
        return "\n".join(
            f"{name:28} {count:>10}  {meaning}".rstrip() for name, count, meaning in rows
        )
