"""The files and tests that documents name exist."""

from __future__ import annotations

import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps import errors
from ncps.errors import NcpsError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ABBREVIATIONS = {"N.": "unit.cache.narinfo.test_naming.", "V.": "unit.cache.nar.test_verify."}


def names_in(text: str) -> set[str]:
    """Return the tests that a page names, with the abbreviations of the page on trust expanded."""
    found = set()
    for name in re.findall(
        r"`((?:unit|contract|system|integration|cluster|e2e|structure|N|V)\.[\w.]+)`", text
    ):
        for short, long in ABBREVIATIONS.items():
            if name.startswith(short):
                name = long + name.removeprefix(short)
        found.add(f"tests.{name}")
    return found


def exists(name: str) -> bool:
    """Return whether a module, a class or a method has this dotted name."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        try:
            found: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def wrong_installs(text: str) -> list[str]:
    """Return commands that install `ncps` from PyPI, where that is another project.

    A path, or the name of the distribution, is right.
    """
    commands = re.findall(r"\bpip3? install([^\n`&|;]*)", text)
    return [
        command
        for command in commands
        for word in command.replace('"', " ").replace("'", " ").split()
        if re.fullmatch(r"ncps(\[.*)?([=<>!~].*)?", word)
    ]


def _statuses(text: str | None) -> set[str]:
    return set(re.findall(r"\b[45]\d\d\b", text or ""))


class DocumentTests(SynchronousTestCase):
    def test_no_page_asks_to_install_another_project(self) -> None:
        """No page tells its reader to install `ncps` from PyPI, where it is another project."""
        pages = [*ROOT.glob("*.md"), ROOT / "tox.ini"]
        for folder, ending in (("docs", "*"), ("ncps", "*.py"), ("tests", "*.py"), (".ci", "*")):
            pages += (ROOT / folder).rglob(ending)
        found = {
            str(page): wrong
            for page in pages
            if page.is_file() and (wrong := wrong_installs(page.read_text()))
        }
        self.assertEqual({}, found)

    def test_a_wrong_install_is_noticed(self) -> None:
        """The rule finds extras, quotes and versions, and allows paths and other names."""
        for text in ("NAME", "'NAME[mysql]' x", "-U NAME>=1`", '"NAME[postgresql]"'):
            command = f"pip {'install'} {text}".replace("NAME", "ncps")
            self.assertNotEqual([], wrong_installs(command), command)
        for text in ("pip install .", "pip install '.[x]'", "pip install 'ncps-nix[x]'", "/src[x]"):
            self.assertEqual([], wrong_installs(text), text)

    def test_distribution(self) -> None:
        """The distribution is called ncps-nix; package, commands and plugin are called ncps."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        self.assertEqual("ncps-nix", project["project"]["name"])
        scripts = {"ncps": "ncps.__main__:main", "dbmate-ncps": "ncps.dbmate:main"}
        self.assertEqual(scripts, project["project"]["scripts"])
        packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        self.assertEqual(["ncps", "twisted"], packages)

    def test_every_test_that_vouches_is_there(self) -> None:
        """The page on trust names tests that exist."""
        names = names_in((DOCS / "trust.md").read_text())
        self.assertGreater(len(names), 20)
        self.assertEqual([], sorted(name for name in names if not exists(name)))

    def test_every_test_of_the_catalogue_is_there(self) -> None:
        """The list of faults names modules, classes and methods of tests that exist."""
        defined: set[str] = set()
        for path in (ROOT / "tests").rglob("*.py"):
            defined.update(path.relative_to(ROOT).with_suffix("").parts)
            defined.update(
                re.findall(r"^ *(?:class|def|async def) (\w+)", path.read_text(), re.MULTILINE)
            )
        names = re.findall(
            r"`((?:[a-z_0-9]+\.)*(?:test_\w+|\w+Tests)(?:\.test_\w+)?)`",
            (DOCS / "testing.md").read_text(),
        )
        self.assertGreater(len(names), 100)
        missing = {name for name in names if not defined.issuperset(name.split("."))}
        self.assertEqual([], sorted(missing))

    def test_files_for_contributors_are_there(self) -> None:
        """The recipes name files and folders that exist; a name in capitals is a placeholder."""
        text = (ROOT / "CONTRIBUTING.md").read_text()
        names = set(re.findall(r"`((?:ncps|tests|docs|schema|\.ci)/[a-z0-9_./]+)`", text))
        self.assertGreater(len(names), 40)
        self.assertEqual([], sorted(name for name in names if not (ROOT / name).exists()))

    def test_names_for_contributors_are_where_a_recipe_says(self) -> None:
        """If a recipe names a part of a module, the module has it."""
        text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
        names = re.findall(r"`(\w+)` (?:of|in) `((?:ncps|tests)/[\w/]+\.py)`", text)
        self.assertGreater(len(names), 20)
        wrong = [
            f"{name} in {path}"
            for name, path in names
            if not re.search(rf"\b{name}\b", (ROOT / path).read_text())
        ]
        self.assertEqual([], wrong)

    def test_each_error_has_its_row(self) -> None:
        """The table for contributors has each error, with the statuses that its docstring names."""
        text = (ROOT / "CONTRIBUTING.md").read_text()
        rows = dict(re.findall(r"^\| `(\w+)` (\|.*)$", text, flags=re.MULTILINE))
        kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
        wrong = [
            kind.__name__
            for kind in kinds
            if issubclass(kind, NcpsError) and kind is not NcpsError
            if kind.__name__ not in rows
            or not _statuses(kind.__doc__) <= _statuses(rows[kind.__name__])
        ]
        self.assertGreater(len(kinds), 10)
        self.assertEqual([], wrong)

    def test_the_glossary_names_modules_that_are_there(self) -> None:
        """Each word names a module or a page, and the words are in alphabetical order."""
        text = (DOCS / "glossary.md").read_text()
        entries = re.split(r"^- ", text, flags=re.MULTILINE)[1:]
        words = [entry.partition("**: ")[0].removeprefix("**") for entry in entries]
        self.assertEqual(sorted(words, key=str.lower), words)
        for word, entry in zip(words, entries, strict=True):
            modules = re.findall(r"`([a-z0-9_/]+(?:\.py)?)`", entry)
            pages = re.findall(r"\]\(([a-z]+\.md)\)", entry)
            found = [name for name in modules if (ROOT / "ncps" / name).exists()]
            found += [name for name in pages if (DOCS / name).exists()]
            self.assertTrue(found, word)
            missing = [name for name in modules if name.endswith(".py") and name not in found]
            self.assertEqual([], missing, word)

    def test_the_code_has_each_word_of_the_glossary(self) -> None:
        """Each part of a term is in a module that its line names, or in the module's path."""
        text = (DOCS / "glossary.md").read_text()
        for entry in re.split(r"^- ", text, flags=re.MULTILINE)[1:]:
            word = entry.partition("**: ")[0].removeprefix("**")
            paths = [
                ROOT / "ncps" / name for name in re.findall(r"`([a-z0-9_/]+(?:\.py)?)`", entry)
            ]
            files = [
                file
                for path in paths
                for file in ([path] if path.is_file() else path.rglob("*.py"))
            ]
            code = "".join(f"{file.relative_to(ROOT)} {file.read_text()}" for file in files).lower()
            parts = word.lower().replace("-", " ").split()
            absent = [part for part in parts if part.removesuffix("s") not in code]
            self.assertTrue(not files or not absent, word)

    def test_a_test_that_is_not_there_is_noticed(self) -> None:
        """`exists` knows modules, classes and methods, and refuses names that do not exist."""
        self.assertTrue(exists("tests.unit.cache.narinfo.test_naming.OwnKeyTests"))
        self.assertFalse(exists("tests.unit.cache.narinfo.test_naming.OtherKeyTests"))
        self.assertFalse(exists("tests.unit.cache.test_nothing"))

    def test_every_promise_and_decision_names_what_exists(self) -> None:
        """Their tests and modules exist; the page on promises names modules from the package."""
        for page in [DOCS / "promises.md", *sorted((DOCS / "decisions").glob("*.md"))]:
            text = page.read_text()
            wrong = [name for name in sorted(names_in(text)) if not exists(name)]
            root = ROOT / "ncps" if page.name == "promises.md" else ROOT
            modules = re.findall(r"`(\w+(?:/\w+)*(?:/|\.py))`", text)
            if root == ROOT:  # after another module of a folder the name of the folder is left out
                modules = [name for name in modules if "/" in name]
            wrong += [name for name in modules if not (root / name).exists()]
            self.assertEqual([], wrong, page.name)

    def test_every_row_of_the_design_names_what_exists(self) -> None:
        """The modules and tests of the table exist."""
        text = (DOCS / "design-table.md").read_text()
        tests = names_in(text)
        modules = re.findall(r"`(/?(?:\w+/)*(?:\w+/|\w+\.(?:py|nix|service|socket)))`", text)
        self.assertGreater(len(tests), 40)
        self.assertGreater(len(modules), 40)
        wrong = [name for name in sorted(tests) if not exists(name)]
        for name in modules:
            root = ROOT if name.startswith("/") else ROOT / "ncps"
            if not (root / name.lstrip("/")).exists():
                wrong.append(name)
        self.assertEqual([], wrong)

    def test_every_number_in_a_page_has_its_place(self) -> None:
        """A page that cites a promise or a decision has a link to it, except in headings."""
        for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
            if page.name in {"promises.md", "README.md"}:
                continue
            text = re.sub(r"^#.*$", "", page.read_text(), flags=re.MULTILINE)
            text = re.sub(r"\[[^\]]+\]\([^)]+\)", "", text)
            if page.name == "architecture.md":  # its first paragraph says where all numbers are
                text = text.partition("\n\n")[2].partition("\n\n")[2]
            self.assertEqual([], re.findall(r"\b[PD][1-9]\d?\b", text), page.name)

    def test_every_number_is_explained(self) -> None:
        """Comments and pages cite only promises and decisions that exist."""
        promises = re.findall(r"^## (P\d+) ", (DOCS / "promises.md").read_text(), re.MULTILINE)
        decisions = re.findall(
            r"^- \[(D\d+)\]", (DOCS / "decisions" / "README.md").read_text(), re.MULTILINE
        )
        pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "benchmarks").rglob("*.py")]
        for folder in ("ncps", "tests", "twisted"):
            pages += (ROOT / folder).rglob("*.py")
        unexplained = {
            f"{page.relative_to(ROOT)}: {number}"
            for page in pages
            for number in re.findall(r"\b[PD][1-9]\d?\b", page.read_text())
            if number not in {*promises, *decisions}
        }
        self.assertEqual(set(), unexplained)

    def test_every_promise_and_decision_has_its_place(self) -> None:
        """All promises and decisions are listed in order."""
        promises = re.findall(r"^## P(\d+) ", (DOCS / "promises.md").read_text(), re.MULTILINE)
        self.assertEqual([str(number) for number in range(1, 13)], promises)
        folder = DOCS / "decisions"
        index = (folder / "README.md").read_text()
        listed = re.findall(r"^- \[D(\d+)\]\((.+?)\)", index, re.MULTILINE)
        records = sorted(path.name for path in folder.glob("d*.md"))
        self.assertEqual(records, [name for _, name in listed])
        for number, name in listed:
            self.assertTrue((folder / name).read_text().startswith(f"# D{number} "), name)
