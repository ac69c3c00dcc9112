"""The links of documents lead to pages and headings that exist, and their tables are tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]


def prose(text: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them.

    A heading that occurs again gets a number.
    """
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+)$", prose(text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def broken(page: Path) -> Iterator[str]:
    """Yield the links of a page to files and headings that do not exist."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            yield link


def pages() -> list[Path]:
    """Return all documents of the project."""
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


class LinkTests(SynchronousTestCase):
    def test_links_lead_to_pages_and_headings(self) -> None:
        """Each link of each document leads to a file, and to a heading of it, that exists."""
        self.assertGreater(len(pages()), 30)
        found = {page.name: links for page in pages() if (links := list(broken(page)))}
        self.assertEqual({}, found)

    def test_rows_of_tables_are_lines(self) -> None:
        """No table was wrapped into a paragraph."""
        row = re.compile(r"\| \| :?-{3}")
        found = [page.name for page in pages() if row.search(prose(page.read_text()))]
        self.assertEqual([], found)

    def test_a_broken_link_is_noticed(self) -> None:
        """A missing file and a missing heading are faults; a second equal heading has a number."""
        page = Path(self.mktemp())
        page.write_text("# A `b` c\n\n## X\n\n## X\n[1](#a-b-c) [2](#x-1) [3](#x-2) [4](no.md)\n")
        self.assertEqual(["#x-2", "no.md"], list(broken(page)))
