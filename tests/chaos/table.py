"""The table of storms in docs/testing.md, with a column for each seed."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.score import MUST_BE_ZERO, Score
from tests.chaos.weather import DENIAL, LIES, SWAP

ORDINARY = (
    "answers",
    "NARs got whole",
    "bytes got",
    "attempts repeated",
    "failed while no upstream was well",
    "failed while a server was away",
    "broken off after wrong bytes",
    "ranges answered in full after wrong bytes",
    "absences that upstreams made up",
    "untrusted paths",
    "faults drawn",
    "of these, false narinfos under a good signature",
    "of these, narinfos with another path's URL, FileHash and FileSize",
    "false facts of files passed on before they were seen",
    "SIGKILLs",
    "SIGTERMs",
    "SIGSTOPs",
    "Redis killed",
    "Redis paused",
    "database killed",
    "database stopped",
    "database paused",
    "S3 paused",
    "S3 refuses",
    "stored files damaged",
    "stored files replaced",
    "files planted at names that had none",
    "set aside",
    "planted files left for the sweep",
    "NARs recorded",
    "upstream NAR requests",
    "whole healthy transfers",
    "second upstreams asked because one was late",
    "transfers explained by false narinfos",
    "transfers explained by another name",
    "peak memory of the last life, MiB",
    "seconds",
)
"""Further counts, in the order of the document. A row with only zeros is left out, except the first
ones, which every storm has."""


def _counts(score: Score) -> dict[str, int]:
    counts = {name.removeprefix("trouble: "): n for name, n in score.counts.items()}
    faults = {
        name.removeprefix("fault: "): number
        for name, number in score.counts.items()
        if name.startswith("fault: ")
    }
    counts["faults drawn"] = sum(faults.values())
    counts["of these, false narinfos under a good signature"] = sum(faults[lie] for lie in LIES)
    counts["of these, narinfos with another path's URL, FileHash and FileSize"] = faults[SWAP]
    counts["faults drawn"] -= faults[DENIAL]  # of paths that this replica must not have
    counts["NARs recorded"] = counts.get("rows", 0)
    return counts


def table(scores: dict[int, Score]) -> Sequence[str]:
    """Return the lines; scores by their seeds."""
    columns = [_counts(score) for score in scores.values()]
    lines = [
        "| counted | " + " | ".join(f"seed {seed}" for seed in scores) + " |",
        "| --- |" + " ---: |" * len(scores),
    ]
    names = {name: name for name in ORDINARY if any(column.get(name) for column in columns)}
    names |= {name: f"**{name}**: {meaning}" for name, meaning in MUST_BE_ZERO.items()}
    for name, label in names.items():
        cells = [f"{column.get(name, 0):,}" for column in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines
