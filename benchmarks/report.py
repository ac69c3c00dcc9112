"""The table for people, and the line of JSON with which runs can be compared."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from benchmarks.rounds import ANCHOR, GO, OURS, Series, Spread


@frozen(kw_only=True)
class Figure:
    """One line of the table.

    :param anchor: the values of nginx, or of another contender that `point` or `quantity` names.
    :param ratio: our values, divided by those of the anchor.
    :param go: the values of the Go program, if the run measures it.
    :param go_ratio: our values, divided by those of the Go program.
    :param least: lower bound of the median of the ratio.
    :param most: upper bound of our median.
    :param digits: the format of the values.
    """

    point: str
    quantity: str
    ours: Spread
    anchor: Spread | None = None
    ratio: Spread | None = None
    go: Spread | None = None
    go_ratio: Spread | None = None
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

    def cells(self, *, with_go: bool) -> list[str]:
        """Return the cells of the line.

        :param with_go: whether the table has columns for the Go program.
        """
        verdict = self.bound and f"{self.bound}: {'met' if self.is_met else 'MISSED'}"
        beside = [_cell(self.go, self.digits), _cell(self.go_ratio, ".2f")] if with_go else []
        return [
            self.point,
            self.quantity,
            _cell(self.anchor, self.digits),
            format(self.ours, self.digits),
            _cell(self.ratio, ".2f"),
            *beside,
            verdict,
        ]

    def as_json(self) -> dict[str, object]:
        """Return all fields, with the values of every round."""
        return {
            "point": self.point,
            "quantity": self.quantity,
            "ncps": self.ours.values,
            "anchor": self.anchor and self.anchor.values,
            "ratio": self.ratio and self.ratio.values,
            "go": self.go and self.go.values,
            "go_ratio": self.go_ratio and self.go_ratio.values,
            "least_ratio": self.least,
            "most": self.most,
            "met": self.is_met,
        }


def compared(
    series: Series,
    quantity: str,
    *,
    point: str,
    label: str,
    anchor: str = ANCHOR,
    with_ratio: bool = True,
    least: float | None = None,
    most: float | None = None,
    digits: str = ",.0f",
) -> Figure:
    """Return a line with our values, those of the anchor, and those of the Go program if it ran.

    :param label: the quantity with its unit, as the table shows it.
    :param with_ratio: whether to show the ratio to the anchor.
    """
    has_go = series.has(GO, quantity)
    return Figure(
        point=point,
        quantity=label,
        anchor=series.spread(anchor, quantity),
        ours=series.spread(OURS, quantity),
        ratio=series.ratio(quantity, anchor=anchor) if with_ratio else None,
        go=series.spread(GO, quantity) if has_go else None,
        go_ratio=series.ratio(quantity, anchor=GO) if has_go else None,
        least=least,
        most=most,
        digits=digits,
    )


def _cell(spread: Spread | None, digits: str) -> str:
    return "" if spread is None else format(spread, digits)


HEAD = ["point", "quantity", "nginx", "ncps", "ncps / nginx", "bound"]
GO_HEAD = ["Go", "ncps / Go"]
"""Two more columns, before the last one, if the Go program was measured."""


def table(figures: Sequence[Figure]) -> str:
    """Return the table in Markdown."""
    with_go = any(figure.go is not None for figure in figures)
    head = [*HEAD[:-1], *GO_HEAD, HEAD[-1]] if with_go else HEAD
    lines = [head, *(figure.cells(with_go=with_go) for figure in figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([row(lines[0]), rule, *map(row, lines[1:])])
