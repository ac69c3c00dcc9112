"""The house checks itself: imports point down, modules stay small, public names are explained."""

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
class Floor:
    """A floor of the house.

    :param level: imports point from higher to lower.
    :param rooms: top-level modules and packages of it.
    :param is_open: whether its rooms may import each other.
    :param never: libraries that have no business there.
    """

    level: int
    name: str
    rooms: frozenset[str]
    is_open: bool = True
    never: tuple[str, ...] = ()


def rooms(names: str) -> frozenset[str]:
    return frozenset(f"ncps.{name}" for name in names.split())


_NETWORK = ("twisted", "treq", "zope", "opentelemetry")
_DRIVERS = ("sqlite3", "psycopg", "pymysql", "boto3", "botocore", "txredisapi")
_ABOVE = (*_DRIVERS, "opentelemetry")
"""Libraries of lower floors."""

_SETTINGS = (
    "settings.declare settings.journal settings.kinds settings.schema settings.setting"
    " settings.showing settings.surroundings"
)
"""Branches of settings and the kinds of their values; to load them is for the assembly."""

_COMMANDS = "commandline commands cli tap __main__"

FLOORS: Final = (
    Floor(0, "0 (formats)", rooms("errors ranges nix codec peering"), never=(*_NETWORK, *_DRIVERS)),
    Floor(1, "1 (settings)", rooms(_SETTINGS), never=("twisted.web", "treq", "zope", *_DRIVERS)),
    Floor(1, "1 (ports)", rooms("ports"), never=(*_NETWORK, *_DRIVERS)),
    Floor(2, "2 (tools)", rooms("aio observe"), never=_DRIVERS),
    Floor(3, "3 (adapters)", rooms("storage database locks upstream"), False, _ABOVE[-1:]),
    Floor(4, "4 (ask)", rooms("ask auth"), False, never=("twisted.web", "treq", *_ABOVE)),
    Floor(5, "5 (cache)", rooms("cache"), never=("twisted.web", "treq", *_ABOVE)),
    Floor(6, "6 (web)", rooms("web"), never=("treq", *_ABOVE)),
    Floor(
        7,
        "7 (assembly)",
        rooms("settings assembly process commandline commands cli dbmate tap __main__"),
    ),
)
"""Where everything lives. A new top-level module goes here, on the lowest floor that its imports
allow; the version in `ncps` itself is known to all."""

ROOMS: Final[Mapping[str, Floor]] = {room: floor for floor in FLOORS for room in floor.rooms}


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
"""Rooms inside a room, the lowest first: a line imports from itself and from earlier lines."""


def room_of(name: str) -> str:
    """The module or package of FLOORS that a dotted name lies in, else the top-level one."""
    inner = ".".join(name.split(".")[:3])
    return inner if inner in ROOMS else ".".join(name.split(".")[:2])


def lines_inside(package: str) -> Mapping[str, int]:
    """The number of the line of each room inside a package."""
    lines = INSIDE.get(package, ())
    return {f"{package}.{name}": at for at, names in enumerate(lines) for name in names.split()}


def complaints_inside(module: Module) -> list[str]:
    """List a module's imports from rooms above its own, inside the same package."""
    found = []
    for package in INSIDE:
        lines = lines_inside(package)
        here = next((room for room in lines if is_within(module.name, room)), None)
        if here is None:
            if is_within(module.name, package) and module.name != package:
                found.append(f"{module.name} has no line yet: give it one in INSIDE")
            continue
        for name in sorted(imports(module)):
            there = next((room for room in lines if is_within(name, room)), None)
            if there is not None and lines[there] > lines[here]:
                found.append(f"{module.name} imports {name} from a room above its own in {package}")
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of names that can all be reached from each other, each in alphabetical order."""
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
    """List the wrong imports of a module, each with both floors named."""
    room = room_of(module.name)
    if room == "ncps":
        return []
    floor = ROOMS.get(room)
    if floor is None:
        return [f"{room} has no floor yet: give it one in FLOORS of tests/structure/test_floors.py"]
    found = []
    for name in sorted(imports(module)):
        here = f"{module.name} on floor {floor.name}"
        if any(is_within(name, library) for library in floor.never):
            found.append(f"{here} imports {name}, which has no business there")
        other_room = room_of(name)
        other = ROOMS.get(other_room)
        if other is None or other_room == room:
            continue
        if other.level > floor.level:
            found.append(f"{here} imports {name} on floor {other.name}: arrows point down only")
        elif other is floor and not floor.is_open:
            found.append(f"{here} imports {name} beside it: its rooms do not see each other")
    return found


class HouseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.modules = modules()

    def test_the_house_is_found(self) -> None:
        """The tests below look at the package and not at an empty folder."""
        self.assertGreater(len(self.modules), 20)
        self.assertIn("ncps.errors", [module.name for module in self.modules])

    def test_imports_point_down(self) -> None:
        """No module knows of what is built on top of it, and adapters do not know each other."""
        found = [complaint for module in self.modules for complaint in complaints(module)]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_rooms_inside_a_room_have_an_order(self) -> None:
        """Arrows point down inside a room as well."""
        found = [complaint for module in self.modules for complaint in complaints_inside(module)]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_no_module_imports_itself_in_a_circle(self) -> None:
        """Not by way of other modules either, nor for the sake of types alone."""
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
        """A module that has grown past its limit wants to be two."""
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
        """The operator chooses the reactor: no module installs one when it is imported."""
        found = {m.name: lines for m in self.modules if (lines := global_reactor_imports(m))}
        self.assertEqual(found, {})

    def test_cancelling_is_never_swallowed(self) -> None:
        """A coroutine that is cancelled ends."""
        found = {m.name: lines for m in self.modules if (lines := swallowed_cancellations(m))}
        self.assertEqual(found, {})


class RuleTests(SynchronousTestCase):
    """The rules see what they are for, on houses made of one line."""

    def test_wrong_arrows_are_named_with_both_floors(self) -> None:
        """Up, sideways between adapters, in functions, relative, and to foreign libraries."""
        for name, source, expected in (
            ("ncps.nix.x", "import ncps.ports", "floor 1 (ports)"),
            ("ncps.ports", "from ncps import cache", "floor 5 (cache)"),
            ("ncps.aio.streams", "from ncps.web.pages.nar import Nar", "floor 6 (web)"),
            ("ncps.cache.x", "def f():\n    import ncps.tap", "floor 7 (assembly)"),
            ("ncps.storage.x", "from ..database import pool", "do not see each other"),
            ("ncps.locks.x", "from ncps.upstream.agent import Agent", "do not see each other"),
            ("ncps.nix.x", "from twisted.internet import defer", "no business"),
            ("ncps.ports", "import treq", "no business"),
            ("ncps.cache.x", "import sqlite3", "no business"),
            ("ncps.cache.x", "from twisted.web.http import OK", "no business"),
            ("ncps.attic", "", "FLOORS"),
        ):
            found = complaints(Module(name, source))
            self.assertEqual(len(found), 1, source)
            self.assertIn(expected, found[0])
            self.assertIn(room_of(name), found[0])

    def test_wrong_arrows_inside_a_room_are_seen(self) -> None:
        """Up, also out of a function; and a room without a line. Down and beside are right."""
        for name, source, expected in (
            ("ncps.cache.narinfo.x", "from ncps.cache.nar import serve", "a room above its own"),
            ("ncps.cache.nar.x", "def f():\n    import ncps.cache.upkeep.evict", "a room above"),
            ("ncps.cache.attic", "", "no line yet"),
        ):
            self.assertIn(expected, " ".join(complaints_inside(Module(name, source))))
        for name, source in (
            ("ncps.cache.nar.x", "from ncps.cache.narinfo import serve\nimport ncps.cache.answers"),
            ("ncps.cache.nar.x", "from ncps.cache.nar import publish\nimport ncps.nix.keys"),
            ("ncps.cache", "from ncps.cache import nar"),
        ):
            self.assertEqual(complaints_inside(Module(name, source)), [])

    def test_circles_are_seen(self) -> None:
        """Of two, of three, of one; a way that comes to no end is none."""
        arrows = {"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"e"}, "e": {"c"}, "f": {"f", "a"}}
        self.assertEqual(circles(arrows), [["a", "b"], ["c", "d", "e"], ["f"]])

    def test_right_arrows_are_let_through(self) -> None:
        """Down, within a room, between formats, and to what everybody may use."""
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
        """From a module and from a package, one dot means another place."""
        source = "from . import a\nfrom .b import c\nfrom ..d import e"
        inside = imports(Module("ncps.x.y", source))
        self.assertEqual(inside, {"ncps.x.a", "ncps.x.b.c", "ncps.d.e"})
        package = imports(Module("ncps.x", source, is_package=True))
        self.assertEqual(package, {"ncps.x.a", "ncps.x.b.c", "ncps.d.e"})

    def test_a_reactor_at_import_is_seen(self) -> None:
        """At the top and under an if, but not inside of a function that runs later."""
        for source, lines in (
            ("from twisted.internet import defer, reactor", [1]),
            ("if x:\n    import twisted.internet.reactor", [2]),
            ("class A:\n    from twisted.internet import reactor", [2]),
            ("def f():\n    from twisted.internet import reactor", []),
            ("async def f():\n    from twisted.internet import reactor", []),
            ("from twisted.internet import defer", []),
        ):
            self.assertEqual(global_reactor_imports(Module("m", source)), lines, source)

    def test_missing_docstrings_are_seen(self) -> None:
        """Of modules, public classes and functions; private names and methods may go without."""
        source = "class A: pass\ndef b(): pass\nasync def c(): pass\ndef _d(): pass\nx = 1"
        self.assertEqual(undocumented(Module("m", source)), ["m", "m.A", "m.b", "m.c"])
        documented = '"""M."""\nclass A:\n    """A."""\n    def b(self): pass'
        self.assertEqual(undocumented(Module("m", documented)), [])

    def test_swallowed_cancellations_are_seen(self) -> None:
        """Everything caught around an await, unless cancelling was seen to or is raised again."""
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
