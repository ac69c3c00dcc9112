"""The house checks its sizes and its names: classes, functions, constructors; no name is twice."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.structure.source import Module, modules

MAX_CLASS: Final = 200
MAX_FUNCTION: Final = 50
MAX_PARAMETERS: Final = 6


def classes(module: Module) -> Iterator[ast.ClassDef]:
    """All classes of a module, private ones and those inside of others included."""
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))


def length(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a class or a function, without its decorators."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def parameters(node: ast.ClassDef) -> int:
    """How many parameters a constructor that is written out has."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return len(part.args.args) + len(part.args.kwonlyargs) - 1
    return 0


class SizeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.classes = [node for module in modules() for node in classes(module)]

    def test_classes_are_small(self) -> None:
        """A class of more than 200 lines has more than one idea."""
        found = {node.name: size for node in self.classes if (size := length(node)) > MAX_CLASS}
        self.assertEqual({}, found)

    def test_functions_are_small(self) -> None:
        """A function of more than 50 lines has a part that deserves a name."""
        found = {
            f"{module.name}.{node.name}": size
            for module in modules()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if (size := length(node)) > MAX_FUNCTION
        }
        self.assertEqual({}, found)

    def test_constructors_have_few_parameters(self) -> None:
        """More than six things to be told are a value that has no name yet."""
        found = {
            node.name: count
            for node in self.classes
            if (count := parameters(node)) > MAX_PARAMETERS
        }
        self.assertEqual({}, found)

    def test_one_name_is_one_thing(self) -> None:
        """No two public classes have the same name."""
        names = Counter(node.name for node in self.classes if not node.name.startswith("_"))
        self.assertEqual([], [name for name, count in names.items() if count > 1])

    def test_names_say_the_thing(self) -> None:
        """A manager, a handler, a helper or a utility can be anything."""
        vague = ("Manager", "Handler", "Helper", "Helpers", "Util", "Utils")
        self.assertEqual([], [node.name for node in self.classes if node.name.endswith(vague)])


class RuleTests(SynchronousTestCase):
    """The rules see what they are for."""

    def test_what_is_counted(self) -> None:
        """Lines from `class` to the last one; positional and keyword parameters without `self`."""
        (node,) = classes(
            Module("m", "class A:\n    def __init__(self, a, *, b=1): pass\n    x = 1")
        )
        self.assertEqual((3, 2), (length(node), parameters(node)))
        outer, inner = classes(Module("m", "class A:\n    class B:\n        x = 1"))
        self.assertEqual(
            [("A", 3, 0), ("B", 2, 0)], [(n.name, length(n), parameters(n)) for n in (outer, inner)]
        )
