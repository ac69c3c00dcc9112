"""Private names of libraries: each name in use is in a list, and each name in a list exists.

A module that uses private names of a library lists them in a constant `BORROWED`; for `ncps.web`
that list is in `ncps.web.fast.borrowed`. A library may rename such a name in any release. mypy
checks names in annotations.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pkgutil import resolve_name
from threading import Thread
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from tests.structure.source import Module, class_sources, imports, modules, parsed
from tests.structure.test_layers import part_of

PUBLIC = frozenset({"_exit", "_replace", "_asdict", "_fields", "_make"})
"""Names of the standard library that have an underscore and are documented."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def without_annotations(tree: ast.AST) -> Iterator[ast.AST]:
    """Return every node of a tree except those of annotations."""
    for field, value in ast.iter_fields(tree):
        if field in {"annotation", "returns"}:
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST):
                yield node
                yield from without_annotations(node)


def is_own(node: ast.Attribute) -> bool:
    """Return whether it is an attribute of the method's own object."""
    text = ast.unparse(node.value)
    return text in {"self", "cls", "super()"}


@cache
def defined(source: str) -> frozenset[str]:
    """Return the private names that source defines in modules, classes and objects."""
    found = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
    return frozenset(filter(is_private, found))


@cache
def source_of(owner: type | ModuleType) -> str:
    try:
        if not isinstance(owner, type):
            return inspect.getsource(owner)
        whole = inspect.getsource(sys.modules[owner.__module__])
    except (OSError, TypeError):  # made in C
        return ""
    return textwrap.dedent(class_sources(whole).get(owner.__qualname__, ""))


def has(owner: type | ModuleType, name: str) -> bool:
    """Return whether a module, a class or the objects of a class have a name."""
    if hasattr(owner, name):
        return True
    return isinstance(owner, type) and any(name in defined(source_of(c)) for c in owner.__mro__)


def borrowed(found: list[Module]) -> list[str]:
    """Return all names of the lists, with their module and class."""
    names: list[str] = []
    for module in found:
        if "BORROWED" in module.source:
            names += getattr(importlib.import_module(module.name), "BORROWED", ())
    return names


def strange(module: Module, ours: frozenset[str]) -> set[str]:
    """Return the private names that a module uses and that are neither its own nor in `ours`."""
    known = ours | defined(module.source)
    found = set()
    for node in without_annotations(module.tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("ncps"):
            for text in [node.module or "", *(alias.name for alias in node.names)]:
                found |= set(text.split(".")) - {"__future__"}
            known -= {alias.asname or alias.name for alias in node.names}
    return {name for name in found - known if is_private(name)}


def shared_with_library(kind: type) -> set[str]:
    """Return the private names that a class of ours shares with its base classes in libraries."""
    ours: set[str] = set()
    theirs: set[str] = set()
    for base in kind.__mro__:
        source = source_of(base)
        if not base.__module__.startswith(("ncps", "tests")):
            theirs |= defined(source) | set(filter(is_private, vars(base)))
        elif source:
            tree = parsed(source)
            ours |= defined(source)
            ours |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_own(n)}
    return ours & theirs


class BorrowedNamesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.modules = modules()
        self.borrowed = borrowed(self.modules)
        parts: dict[str, list[Module]] = {}
        for module in self.modules:
            parts.setdefault(part_of(module.name), []).append(module)
        #: The names in the lists of each part of the program.
        self.names = {
            part: {full.rpartition(".")[2] for full in borrowed(found)}
            for part, found in parts.items()
        }

    def test_the_libraries_still_have_them(self) -> None:
        """The libraries that are installed have each name of the lists."""
        self.assertGreater(len(self.borrowed), 10)
        self.assertEqual(sorted(set(self.borrowed)), sorted(self.borrowed))
        for full in self.borrowed:
            owner, _, name = full.rpartition(".")
            self.assertTrue(has(resolve_name(owner), name), full)

    def test_every_private_name_in_use_is_listed(self) -> None:
        """A name is our own if the module defines it, or a module of ours that it imports."""
        by_name = {module.name: module for module in self.modules}
        for module in self.modules:
            near = {n for name in imports(module) for n in (name, name.rpartition(".")[0])}
            ours = frozenset().union(*(defined(by_name[n].source) for n in near if n in by_name))
            found = strange(module, ours) - self.names[part_of(module.name)]
            self.assertEqual(set(), found, module.name)

    def test_every_name_shared_with_a_base_class_is_listed(self) -> None:
        """A class that overrides a private method of a library depends on it, too."""
        for module in self.modules:
            if module.name.endswith("__main__"):
                continue
            for kind in vars(importlib.import_module(module.name)).values():
                if isinstance(kind, type) and kind.__module__ == module.name:
                    found = shared_with_library(kind) - self.names[part_of(module.name)]
                    self.assertEqual(set(), found, f"{module.name}.{kind.__name__}")


class _Ours(Thread):
    def keep(self) -> object:
        return self._target  # type: ignore[attr-defined]


class RuleTests(SynchronousTestCase):
    """The rules find each fault."""

    def test_foreign_names_are_seen(self) -> None:
        """In attributes and imports; not our own names, and not names in annotations."""
        for source, expected in (
            ("x._a", {"_a"}),
            ("x._a = 1", {"_a"}),
            ("from library import _a", {"_a"}),
            ("from library._a import b", {"_a"}),
            ("x: library._A = 1", set()),
            ("def f(x: library._A) -> library._B: pass", set()),
            ("class A:\n    def f(self): self._a = 1\n    def g(self): return self._a", set()),
            ("os._exit(1)", set()),
        ):
            self.assertEqual(strange(Module("m", source), frozenset()), expected, source)

    def test_names_of_objects_are_found(self) -> None:
        """Also names that only the constructor of a class sets."""
        self.assertTrue(has(_Ours, "_target"))
        self.assertFalse(has(_Ours, "_lost"))

    def test_names_shared_with_a_base_are_seen(self) -> None:
        """Also names that are only read."""
        self.assertEqual(shared_with_library(_Ours), {"_target"})
