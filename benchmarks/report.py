"""The table for people, and the line of JSON with which runs can be compared."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from benchmarks.rounds import Spread


@frozen(kw_only=True)
class Figure:
    """One line of the table.

    :param anchor: the values of nginx, or of another contender that `point` or `quantity` names.
    :param ratio: our values, divided by those of the anchor.
    :param least: lower bound of the median of the ratio.
    :param most: upper bound of our median.
    :param digits: the format of the values.
    """

    point: str
    quantity: str
    ours: Spread
    anchor: Spread | None = None
    ratio: Spread | None = None
    least: float | None = None
    most: float | None = None
    digits: str = ",.0f"

    @property
    def is_met(self) -> bool:
        """Whether the figure meets its bounds."""
        if self.least is not None and self.ratio is not None and self.ratio.median < self.least:
            return False
        return self.most is None or self.ours.median <= self.most

    @property
    def bound(self) -> str:
        """The bound, as the table shows it."""
        if self.least is not None:
            return f"ratio ≥ {self.least:g}"
        return f"≤ {self.most:g}" if self.most is not None else ""

    def cells(self) -> list[str]:
        """Return the cells of the line."""
        anchor = "" if self.anchor is None else format(self.anchor, self.digits)
        ratio = "" if self.ratio is None else format(self.ratio, ".2f")
        verdict = self.bound and f"{self.bound}: {'met' if self.is_met else 'MISSED'}"
        ours = format(self.ours, self.digits)
        return [self.point, self.quantity, anchor, ours, ratio, verdict]

    def as_json(self) -> dict[str, object]:
        """Return all fields, with the values of every round."""
        return {
            "point": self.point,
            "quantity": self.quantity,
            "ncps": self.ours.values,
            "anchor": self.anchor and self.anchor.values,
            "ratio": self.ratio and self.ratio.values,
            "least_ratio": self.least,
            "most": self.most,
            "met": self.is_met,
        }


HEAD = ["point", "quantity", "nginx", "ncps", "ncps / nginx", "bound"]


def table(figures: Sequence[Figure]) -> str:
    """Return the table in Markdown."""
    lines = [HEAD, *(figure.cells() for figure in figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]

    def row(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([row(lines[0]), rule, *map(row, lines[1:])])
