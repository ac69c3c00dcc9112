"""Tests of the benchmarks' table."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.report import Figure, compared, table
from benchmarks.rounds import ANCHOR, GO, OURS, Series, Spread

ROUNDS = (
    {ANCHOR: {"rate": 100.0}, OURS: {"rate": 50.0}, GO: {"rate": 10.0}},
    {ANCHOR: {"rate": 100.0}, OURS: {"rate": 80.0}, GO: {"rate": 20.0}},
    {ANCHOR: {"rate": 200.0}, OURS: {"rate": 80.0}, GO: {"rate": 10.0}},
)


def rate(*contenders: str) -> Figure:
    """Return the line of the rates of some contenders."""
    rounds = tuple({name: one[name] for name in contenders} for one in ROUNDS)
    series = Series(rounds=rounds, repeats=0)
    return compared(series, "rate", point="hit", label="requests/s", least=0.6)


def cells(line: str) -> list[str]:
    """Return the cells of a line of the table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


class TableTests(SynchronousTestCase):
    def test_beside_nginx(self) -> None:
        """Ratios are those of the rounds, and a bound on them is judged."""
        head, _, line = table([rate(ANCHOR, OURS)]).splitlines()
        self.assertEqual(
            ["point", "quantity", "nginx", "ncps", "ncps / nginx", "bound"], cells(head)
        )
        self.assertEqual(
            ["hit", "requests/s", "100 [100..200]", "80 [50..80]", "0.50 [0.40..0.80]"],
            cells(line)[:-1],
        )
        self.assertEqual("ratio ≥ 0.6: MISSED", cells(line)[-1])

    def test_beside_the_go_program(self) -> None:
        """Two more columns have its values and the ratio to them, in every line."""
        plain = Figure(point="hit", quantity="RSS peak, MiB", ours=Spread([87.0]))
        head, _, line, other = table([rate(ANCHOR, OURS, GO), plain]).splitlines()
        self.assertEqual(["Go", "ncps / Go", "bound"], cells(head)[-3:])
        self.assertEqual(["10 [10..20]", "5.00 [4.00..8.00]"], cells(line)[-3:-1])
        self.assertEqual(["", "87", "", "", "", ""], cells(other)[2:])

    def test_json(self) -> None:
        """A line of the log has the values of all rounds."""
        found = rate(ANCHOR, OURS, GO).as_json()
        self.assertEqual([10.0, 20.0, 10.0], found["go"])
        self.assertEqual([5.0, 4.0, 8.0], found["go_ratio"])
        self.assertIsNone(rate(ANCHOR, OURS).as_json()["go"])
