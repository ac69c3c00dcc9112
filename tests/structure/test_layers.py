"""Rules for the program: imports point down, modules are small, public names have docstrings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.structure.source import (
    PROJECT,
    Module,
    global_reactor_imports,
    imports,
    modules,
    swallowed_cancellations,
    undocumented,
)

MAX_LINES: Final = 400


@frozen
class Layer:
    """A layer of the program.

    :param level: a module imports from its own level or from lower ones.
    :param parts: the modules and packages on this layer.
    :param is_open: whether its parts may import each other.
    :param never: libraries that its modules must not import.
    """

    level: int
    name: str
    parts: frozenset[str]
    is_open: bool = True
    never: tuple[str, ...] = ()


def parts(names: str) -> frozenset[str]:
    return frozenset(f"ncps.{name}" for name in names.split())


_NETWORK = ("twisted", "treq", "zope", "opentelemetry")
_DRIVERS = ("sqlite3", "psycopg", "pymysql", "boto3", "botocore", "txredisapi")
_ABOVE = (*_DRIVERS, "opentelemetry")
"""Libraries for lower layers only."""

_SETTINGS = (
    "settings.declare settings.journal settings.kinds settings.schema settings.setting"
    " settings.showing settings.surroundings"
)
"""Branches of settings and the kinds of their values. Only the assembly loads settings."""

_COMMANDS = "commandline commands cli tap __main__"

LAYERS: Final = (
    Layer(0, "0 (formats)", parts("errors ranges nix codec peering"), never=(*_NETWORK, *_DRIVERS)),
    Layer(1, "1 (settings)", parts(_SETTINGS), never=("twisted.web", "treq", "zope", *_DRIVERS)),
    Layer(1, "1 (ports)", parts("ports"), never=(*_NETWORK, *_DRIVERS)),
    Layer(2, "2 (tools)", parts("aio observe"), never=_DRIVERS),
    Layer(3, "3 (adapters)", parts("storage database locks upstream"), False, _ABOVE[-1:]),
    Layer(4, "4 (ask)", parts("ask auth"), False, never=("twisted.web", "treq", *_ABOVE)),
    Layer(5, "5 (cache)", parts("cache"), never=("twisted.web", "treq", *_ABOVE)),
    Layer(6, "6 (web)", parts("web"), never=("treq", *_ABOVE)),
    Layer(
        7,
        "7 (assembly)",
        parts("settings assembly process commandline commands cli dbmate tap __main__"),
    ),
)
"""All layers. Add a new top-level module to the lowest layer that its imports allow. Every layer
may import the version in `ncps` itself."""

PARTS: Final[Mapping[str, Layer]] = {part: layer for layer in LAYERS for part in layer.parts}


INSIDE: Final[Mapping[str, tuple[str, ...]]] = {
    "ncps.cache": (
        "answers cluster",
        "world",
        "narinfo",
        "realisation",
        "nar",
        "write closures ahead",
        "upkeep readiness core extras recompress",
        "bulk cache",
    ),
    "ncps.database": (
        "former lock clock rows migration accounts wrong keyed_read",
        "dialects",
        "steps walguard connections together local pool server migrate",
        "pins blocks",
        "nars narinfos realisations replicas tokens idle references removals twins",
        "catalog",
    ),
    "ncps.locks": ("degraded keeper local notices", "shared", "files redis postgresql"),
    "ncps.storage": (
        "os_errors keys temps lock calls room blobs",
        "stores",
        "directories listing sealed tree small_files directory_body directory",
        "s3",
    ),
    "ncps.web": (
        "clients crowd address_counts misled certificates vouched targets",
        "fast.heads fast.hot fast.hot_nars fast.ledger accesslog traced",
        "state",
        "fast",
        "answer incoming sending",
        "request",
        "respond guard access",
        "site routes",
        "grammar",
        "api_routes",
        "pages",
    ),
}
"""Parts of a package, the lowest first: a line imports from itself and from earlier lines."""


def part_of(name: str) -> str:
    """Return the module or package of LAYERS that has a dotted name, else the top-level one."""
    inner = ".".join(name.split(".")[:3])
    return inner if inner in PARTS else ".".join(name.split(".")[:2])


def lines_inside(package: str) -> Mapping[str, int]:
    """Return the number of the line of each part of a package."""
    lines = INSIDE.get(package, ())
    return {f"{package}.{name}": at for at, names in enumerate(lines) for name in names.split()}


def complaints_inside(module: Module) -> list[str]:
    """List a module's imports from parts above its own in the same package."""
    found = []
    for package in INSIDE:
        lines = lines_inside(package)
        here = next((part for part in lines if is_within(module.name, part)), None)
        if here is None:
            if is_within(module.name, package) and module.name != package:
                found.append(f"{module.name} has no line yet: give it one in INSIDE")
            continue
        for name in sorted(imports(module)):
            there = next((part for part in lines if is_within(name, part)), None)
            if there is not None and lines[there] > lines[here]:
                found.append(f"{module.name} imports {name} from a part above its own in {package}")
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of names that import each other in a circle, each group sorted."""
    reach: dict[str, set[str]] = {}
    for name in arrows:
        reach[name], todo = set(), [name]
        while todo:
            for other in arrows.get(todo.pop(), set()) - reach[name]:
                reach[name].add(other)
                todo.append(other)
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach.get(other, set())))
        for name in arrows
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def is_within(name: str, library: str) -> bool:
    return name == library or name.startswith(f"{library}.")


def complaints(module: Module) -> list[str]:
    """List the wrong imports of a module, each with both layers named."""
    part = part_of(module.name)
    if part == "ncps":
        return []
    layer = PARTS.get(part)
    if layer is None:
        return [f"{part} has no layer yet: give it one in LAYERS of tests/structure/test_layers.py"]
    found = []
    for name in sorted(imports(module)):
        here = f"{module.name} on layer {layer.name}"
        if any(is_within(name, library) for library in layer.never):
            found.append(f"{here} imports {name}, which this layer must not import")
        other_part = part_of(name)
        other = PARTS.get(other_part)
        if other is None or other_part == part:
            continue
        if other.level > layer.level:
            found.append(f"{here} imports {name} on layer {other.name}: imports point down only")
        elif other is layer and not layer.is_open:
            found.append(
                f"{here} imports {name} beside it: parts of this layer do not import each other"
            )
    return found


class LayerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.modules = modules()

    def test_the_package_is_found(self) -> None:
        """The tests below read the modules of ncps and not an empty folder."""
        self.assertGreater(len(self.modules), 20)
        self.assertIn("ncps.errors", [module.name for module in self.modules])

    def test_imports_point_down(self) -> None:
        """No module imports from a higher layer, and adapters do not import each other."""
        found = [complaint for module in self.modules for complaint in complaints(module)]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_parts_of_a_package_have_an_order(self) -> None:
        """Imports point down inside a package, too."""
        found = [complaint for module in self.modules for complaint in complaints_inside(module)]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_no_module_imports_itself_in_a_circle(self) -> None:
        """Imports through other modules count, and so do imports for types."""
        names = {module.name for module in self.modules}
        arrows = {
            module.name: {
                found
                for name in imports(module)
                for found in (name, name.rpartition(".")[0])
                if found in names and found not in {module.name, "ncps"}
            }
            for module in self.modules
        }
        self.assertEqual(circles(arrows), [])

    def test_modules_are_small(self) -> None:
        """A module has at most 400 lines."""
        long = {
            module.name: lines
            for module in (*self.modules, *modules(PROJECT / "tests"))
            if (lines := module.source.count("\n")) > MAX_LINES
        }
        self.assertEqual(long, {}, f"more than {MAX_LINES} lines")

    def test_public_names_are_explained(self) -> None:
        """Every module, and every public class and function in it, has a docstring."""
        self.assertEqual([name for module in self.modules for name in undocumented(module)], [])

    def test_importing_chooses_no_reactor(self) -> None:
        """No module installs a reactor when it is imported: the operator chooses it."""
        found = {m.name: lines for m in self.modules if (lines := global_reactor_imports(m))}
        self.assertEqual(found, {})

    def test_cancelling_is_never_swallowed(self) -> None:
        """No handler around an await hides a CancelledError."""
        found = {m.name: lines for m in self.modules if (lines := swallowed_cancellations(m))}
        self.assertEqual(found, {})


class RuleTests(SynchronousTestCase):
    """The rules find each fault in modules of one line."""

    def test_wrong_imports_are_reported_with_both_layers(self) -> None:
        """Imports of a higher layer, of another adapter, of a library; also in a function."""
        for name, source, expected in (
            ("ncps.nix.x", "import ncps.ports", "layer 1 (ports)"),
            ("ncps.ports", "from ncps import cache", "layer 5 (cache)"),
            ("ncps.aio.streams", "from ncps.web.pages.nar import Nar", "layer 6 (web)"),
            ("ncps.cache.x", "def f():\n    import ncps.tap", "layer 7 (assembly)"),
            ("ncps.storage.x", "from ..database import pool", "do not import each other"),
            ("ncps.locks.x", "from ncps.upstream.agent import Agent", "do not import each other"),
            ("ncps.nix.x", "from twisted.internet import defer", "must not import"),
            ("ncps.ports", "import treq", "must not import"),
            ("ncps.cache.x", "import sqlite3", "must not import"),
            ("ncps.cache.x", "from twisted.web.http import OK", "must not import"),
            ("ncps.attic", "", "LAYERS"),
        ):
            found = complaints(Module(name, source))
            self.assertEqual(len(found), 1, source)
            self.assertIn(expected, found[0])
            self.assertIn(part_of(name), found[0])

    def test_wrong_imports_inside_a_package_are_reported(self) -> None:
        """Imports of a higher part, also in a function, and a part without a line."""
        for name, source, expected in (
            ("ncps.cache.narinfo.x", "from ncps.cache.nar import serve", "a part above its own"),
            ("ncps.cache.nar.x", "def f():\n    import ncps.cache.upkeep.evict", "a part above"),
            ("ncps.cache.attic", "", "no line yet"),
        ):
            self.assertIn(expected, " ".join(complaints_inside(Module(name, source))))
        for name, source in (
            ("ncps.cache.nar.x", "from ncps.cache.narinfo import serve\nimport ncps.cache.answers"),
            ("ncps.cache.nar.x", "from ncps.cache.nar import publish\nimport ncps.nix.keys"),
            ("ncps.cache", "from ncps.cache import nar"),
        ):
            self.assertEqual(complaints_inside(Module(name, source)), [])

    def test_circles_are_found(self) -> None:
        """Circles of two, of three and of one name."""
        arrows = {"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"e"}, "e": {"c"}, "f": {"f", "a"}}
        self.assertEqual(circles(arrows), [["a", "b"], ["c", "d", "e"], ["f"]])

    def test_right_imports_are_allowed(self) -> None:
        """Imports of a lower layer, of the same part, of another format, and of the version."""
        for name, source in (
            ("ncps.tap", "from ncps.web import site\nimport ncps.cache.nar.serve"),
            ("ncps.nix.x", "from ncps.nix import base32\nfrom . import hashes, keys"),
            ("ncps.nix.x", "from ncps import codec, __version__"),
            ("ncps.storage.x", "from ncps.storage.keys import Key\nimport twisted.internet"),
            ("ncps.web.x", "from ncps import __version__\nimport twistedness"),
            ("ncps", "from ncps import cache"),
        ):
            self.assertEqual(complaints(Module(name, source)), [])

    def test_relative_imports_are_resolved(self) -> None:
        """One dot means another package in a module than in the `__init__` of a package."""
        source = "from . import a\nfrom .b import c\nfrom ..d import e"
        inside = imports(Module("ncps.x.y", source))
        self.assertEqual(inside, {"ncps.x.a", "ncps.x.b.c", "ncps.d.e"})
        package = imports(Module("ncps.x", source, is_package=True))
        self.assertEqual(package, {"ncps.x.a", "ncps.x.b.c", "ncps.d.e"})

    def test_a_reactor_at_import_is_found(self) -> None:
        """At the top and below an if, but not in a function that runs later."""
        for source, lines in (
            ("from twisted.internet import defer, reactor", [1]),
            ("if x:\n    import twisted.internet.reactor", [2]),
            ("class A:\n    from twisted.internet import reactor", [2]),
            ("def f():\n    from twisted.internet import reactor", []),
            ("async def f():\n    from twisted.internet import reactor", []),
            ("from twisted.internet import defer", []),
        ):
            self.assertEqual(global_reactor_imports(Module("m", source)), lines, source)

    def test_missing_docstrings_are_found(self) -> None:
        """Modules, public classes and functions need one; private names and methods do not."""
        source = "class A: pass\ndef b(): pass\nasync def c(): pass\ndef _d(): pass\nx = 1"
        self.assertEqual(undocumented(Module("m", source)), ["m", "m.A", "m.b", "m.c"])
        documented = '"""M."""\nclass A:\n    """A."""\n    def b(self): pass'
        self.assertEqual(undocumented(Module("m", documented)), [])

    def test_swallowed_cancellations_are_found(self) -> None:
        """A handler of all errors around an await that does not let CancelledError pass."""
        for body, clauses, is_seen in (
            ("await x", "except Exception: pass", True),
            ("await x", "except: pass", True),
            ("await x", "except BaseException: pass", True),
            ("await x", "except (ValueError, Exception): pass", True),
            ("await x", "except builtins.Exception: pass", True),
            ("y(await x)", "except Exception: pass", True),
            ("async with x: pass", "except Exception: pass", True),
            ("async for y in x: pass", "except Exception: pass", True),
            ("await x", "except Exception: pass\n    except CancelledError: raise", True),
            ("await x", "except Exception as e: raise Other from e", True),
            ("await x", "except CancelledError: raise\n    except Exception: pass", False),
            ("await x", "except defer.CancelledError: raise\n    except Exception: pass", False),
            ("await x", "except BaseException:\n        clean()\n        raise", False),
            ("await x", "except ValueError: pass", False),
            ("x()", "except Exception: pass", False),
            ("x = lambda: (yield)", "except Exception: pass", False),
        ):
            source = f"async def f():\n    try:\n        {body}\n    {clauses}"
            seen = bool(swallowed_cancellations(Module("m", source)))
            self.assertIs(seen, is_seen, source)
