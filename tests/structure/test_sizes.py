"""Rules for sizes and names: classes, functions and constructors are small; names are unique."""

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
    """Return all classes of a module, also private and nested ones."""
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))


def length(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a class or a function, without its decorators."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def parameters(node: ast.ClassDef) -> int:
    """Return the number of parameters of a constructor; 0 if the class has no `__init__`."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return len(part.args.args) + len(part.args.kwonlyargs) - 1
    return 0


class SizeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.classes = [node for module in modules() for node in classes(module)]

    def test_classes_are_small(self) -> None:
        """A class has at most 200 lines."""
        found = {node.name: size for node in self.classes if (size := length(node)) > MAX_CLASS}
        self.assertEqual({}, found)

    def test_functions_are_small(self) -> None:
        """A function has at most 50 lines."""
        found = {
            f"{module.name}.{node.name}": size
            for module in modules()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if (size := length(node)) > MAX_FUNCTION
        }
        self.assertEqual({}, found)

    def test_constructors_have_few_parameters(self) -> None:
        """A constructor has at most six parameters; more of them belong into a value."""
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

    def test_no_name_is_vague(self) -> None:
        """No class is called Manager, Handler, Helper or Util."""
        vague = ("Manager", "Handler", "Helper", "Helpers", "Util", "Utils")
        self.assertEqual([], [node.name for node in self.classes if node.name.endswith(vague)])


class RuleTests(SynchronousTestCase):
    """The rules count as their docstrings say."""

    def test_rules_of_counting(self) -> None:
        """Lines from `class` to the last one; positional and keyword parameters without `self`."""
        (node,) = classes(
            Module("m", "class A:\n    def __init__(self, a, *, b=1): pass\n    x = 1")
        )
        self.assertEqual((3, 2), (length(node), parameters(node)))
        outer, inner = classes(Module("m", "class A:\n    class B:\n        x = 1"))
        self.assertEqual(
            [("A", 3, 0), ("B", 2, 0)], [(n.name, length(n), parameters(n)) for n in (outer, inner)]
        )
