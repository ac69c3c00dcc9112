"""Sentences in docstrings and comments: the faults of style that a program can find."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.structure.source import PROJECT, Module, modules, parsed

FOLDERS: Final = ("ncps", "tests", "benchmarks")

_QUESTION_WORD: Final = re.compile(
    r"(?:^|[.:;] )(?:Who|What|Whose|Whoever|Whatever|Which)\b(?![^.]*\?)"
    r"|:(?:param|ivar|cvar) \w+: (?:what|who|whom)\b"
    r"|\b(?:Whoever|whoever)\b"
)
"""A question word as the subject. It is allowed in a sentence that ends with a question mark."""

_BARE_RAISES: Final = re.compile(r"\bRaises (?:[A-Z]\w+(?:, | or | and |\b))+\.(?:\s|$)")
"""`Raises` with an error but without the case."""


def _docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield docstrings, and the texts below attributes and constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str):
                yield text


def _comments(source: str) -> Iterator[str]:
    """Yield comments without `#`; adjacent lines are one comment."""
    last, text = -1, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = token.string.lstrip("#:").strip()
        if token.start[0] == last + 1:
            text = f"{text} {words}"
        else:
            yield text
            text = words
        last = token.start[0]
    yield text


def faults(source: str) -> list[str]:
    """Return sentences with a question word as their subject, and errors without a case."""
    texts = [" ".join(text.split()) for text in _docstrings(parsed(source))]
    texts += _comments(source)
    return [
        text[max(0, fault.start() - 40) : fault.end() + 40]
        for text in texts
        for rule in (_QUESTION_WORD, _BARE_RAISES)
        for fault in rule.finditer(text)
    ]


def faults_of_page(text: str) -> list[str]:
    """Return sentences of a Markdown page whose subject is a question word."""
    text = re.sub(r"```.*?```|^(?:    |#).*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    found = []
    for paragraph in re.split(r"\n\s*\n|^[-*] |\|", text, flags=re.MULTILINE):
        line = " ".join(paragraph.split())
        found += [line[fault.start() : fault.end() + 40] for fault in _QUESTION_WORD.finditer(line)]
    return found


def broken_summaries(source: str) -> list[str]:
    """Return the first lines of docstrings whose first sentence needs a second line."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        first
        for node in ast.walk(parsed(source))
        if isinstance(node, kinds)
        for first, _, rest in [(ast.get_docstring(node) or "").partition("\n")]
        if rest and not rest.startswith("\n")
    ]


class EnglishTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.modules: list[Module] = [
            module for folder in FOLDERS for module in modules(PROJECT / folder)
        ]

    def test_sentences_name_their_subject(self) -> None:
        """No question word is a subject, and each error has its case."""
        found = {module.name: wrong for module in self.modules if (wrong := faults(module.source))}
        self.assertEqual({}, found)

    def test_summaries_are_one_line(self) -> None:
        """The first line of a docstring is a complete sentence."""
        found = {
            module.name: wrong
            for module in self.modules
            if (wrong := broken_summaries(module.source))
        }
        self.assertEqual({}, found)

    def test_documents_name_their_subject(self) -> None:
        """The rule covers sentences and cells of tables, but not headings and blocks of code."""
        pages = [*(PROJECT / "docs").rglob("*.md"), *PROJECT.glob("*.md")]
        found = {page.name: wrong for page in pages if (wrong := faults_of_page(page.read_text()))}
        self.assertEqual({}, found)


class RuleTests(SynchronousTestCase):
    """The rules find each fault."""

    def test_faults(self) -> None:
        """In docstrings, below attributes, in parameters, in comments; questions are no fault."""
        for text in (
            '"""What a client sends."""',
            'X = 1\n"""Who asks."""',
            '"""It is. What follows is wrong."""',
            '"""A thing.\n\n:param a: what it is.\n"""',
            "# Whoever reads this",
            "# Lines\n# of. What is\n# said",
            '"""Do it. Raises NotFound."""',
            '"""Do it. Raises NotFound, Unavailable or Corrupt. More."""',
        ):
            self.assertEqual(1, len(faults(text)), text)
        for text in (
            '"""Say what a client sends."""',
            '"""Do it. Raises NotFound if it is away."""',
            "# What is it?",
            'x = "What a text"',
        ):
            self.assertEqual([], faults(text), text)

    def test_faults_of_pages(self) -> None:
        """In paragraphs, lists and tables; not in headings, code and questions."""
        for text in ("What is here.", "- a\n- Who asks", "| a | What b |", "It is. What\nis so."):
            self.assertEqual(1, len(faults_of_page(text)), text)
        for text in ("## What survives", "    What", "```\nWhat\n```", "What is it?", "Say what."):
            self.assertEqual([], faults_of_page(text), text)

    def test_summaries(self) -> None:
        """A second line directly below the first one continues the sentence."""
        self.assertEqual(["One"], broken_summaries('"""One\ntwo."""'))
        self.assertEqual([], broken_summaries('"""One.\n\ntwo."""'))
