"""Python source for the structural tests: modules, their imports and their handlers."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attrs import frozen

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "ncps"

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@frozen
class Module:
    """A module and its syntax tree.

    :param name: dotted; a package has its own name, without `__init__`.
    """

    name: str
    source: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        return parsed(self.source)


@cache
def parsed(source: str) -> ast.Module:
    """Parse source once for all tests, which do not change the tree.

    A tree has many nodes and no garbage, so it is hidden from the garbage collector.
    """
    gc.disable()
    try:
        tree = ast.parse(source)
        gc.freeze()
    finally:
        gc.enable()
    return tree


@cache
def class_sources(source: str) -> dict[str, str]:
    """Return the source of each class by its qualified name; of the first if there are two.

    `inspect.getsource` parses the whole module for each class.
    """
    lines = source.splitlines(keepends=True)
    found: dict[str, str] = {}
    rest: list[tuple[str, ast.AST]] = [("", parsed(source))]
    while rest:
        prefix, node = rest.pop()
        if isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            found.setdefault(prefix + node.name, "".join(lines[first - 1 : node.end_lineno]))
            prefix += f"{node.name}."
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            prefix += f"{node.name}.<locals>."
        rest += [(prefix, child) for child in reversed([*ast.iter_child_nodes(node)])]
    return found


def modules(package: Path = PACKAGE) -> list[Module]:
    """Read every module of a package."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return found


def imports(module: Module) -> set[str]:
    """Return every absolute name that the module imports; ``from a import b`` gives a.b."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{_origin(module, node)}.{alias.name}" for alias in node.names)
    return found


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    up = node.level - module.is_package
    package = package[: len(package) - up]
    return ".".join([*package, node.module] if node.module else package)


def global_reactor_imports(module: Module) -> list[int]:
    """Return the lines that install the global reactor when the module is imported."""
    return [
        node.lineno
        for node in _within(module.tree)
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "twisted.internet"
            and any(alias.name == "reactor" for alias in node.names)
        )
        or (
            isinstance(node, ast.Import)
            and any(alias.name == "twisted.internet.reactor" for alias in node.names)
        )
    ]


def undocumented(module: Module) -> list[str]:
    """Return the public names without docstring: the module, its classes and functions."""
    found = [] if ast.get_docstring(module.tree) else [module.name]
    found.extend(
        f"{module.name}.{node.name}"
        for node in module.tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    )
    return found


def swallowed_cancellations(module: Module) -> list[int]:
    """Return the lines of handlers around an await that may hide a cancellation.

    Twisted's CancelledError is an ordinary Exception. A handler is right if an earlier one
    catches CancelledError, or if it raises the caught error again at its end.
    """
    return [
        handler.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Try) and _awaits(node.body)
        for handler in _greedy(node.handlers)
    ]


def _awaits(body: list[ast.stmt]) -> bool:
    waiting = (ast.Await, ast.AsyncFor, ast.AsyncWith)
    return any(isinstance(node, waiting) for stmt in body for node in (stmt, *_within(stmt)))


def _within(root: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run with `root`: all below it except the bodies of functions."""
    for node in ast.iter_child_nodes(root):
        yield node
        if not isinstance(node, _FUNCTIONS):
            yield from _within(node)


def _greedy(handlers: list[ast.ExceptHandler]) -> Iterator[ast.ExceptHandler]:
    for handler in handlers:
        caught = _caught(handler)
        if "CancelledError" in caught:
            return
        if caught & {"Exception", "BaseException"} and not _raises_again(handler):
            yield handler


def _caught(handler: ast.ExceptHandler) -> set[str]:
    if handler.type is None:
        return {"BaseException"}
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(node).rpartition(".")[2] for node in types}


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None
