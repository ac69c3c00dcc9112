"""`docs/openapi.yaml`, the description of the routes for programs, is right."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Final

import yaml
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps import __version__
from ncps.auth.principal import Scope
from ncps.cache.bulk.answers import MOST_HASHES, ClosurePath, Where
from ncps.observe.metrics import Metrics
from ncps.web.api_routes import closures, pins, query, removals
from ncps.web.grammar import extras, realisations
from ncps.web.pages.bulk import ClosurePages, QueryPage
from ncps.web.pages.closures import PinPages, RemovalPages
from ncps.web.pages.extras import ExtraPages
from ncps.web.pages.realisation import RealisationPages
from ncps.web.routes import Route, Routes, only_below_upload
from tests.fakes.bulk import StubBulk
from tests.fakes.cache import StubRealisations
from tests.fakes.extras import StubExtras
from tests.fakes.threads import InlineThreads
from tests.fakes.verbs import StubClosures
from tests.structure.source import modules
from tests.unit.web.wire import Server

DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "openapi.yaml"
METHODS: Final = frozenset({"get", "head", "put", "post", "delete", "patch"})


def routes() -> tuple[Route, ...]:
    """Return the routes of the program."""
    bulk = StubBulk()
    verbs = StubClosures()
    removing = RemovalPages(verbs)
    more = [
        query(QueryPage(bulk, InlineThreads())),
        closures(ClosurePages(bulk)),
        *pins(PinPages(verbs)),
        *removals(removing),
        *realisations(RealisationPages(StubRealisations(), Metrics())),
        *extras(ExtraPages(StubExtras(), Metrics(), Clock())),
    ]
    root = Server(more=more, removals=removing).site.resource
    assert isinstance(root, Routes)
    return tuple(map(only_below_upload, root.table))  # as it is without `cache-upload-at-root`


def labels_in_code() -> set[str]:
    """Return the label of each route that the program can make."""
    found = set()
    for module in modules():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "Route":
                given = [word.value for word in node.keywords if word.arg == "label"]
            else:
                given = node.args[:1] if node.func.id == "fixed" else []
            found |= {str(value.value) for value in given if isinstance(value, ast.Constant)}
    return found


class OpenApiTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.document: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
        self.paths: dict[str, Any] = self.document["paths"]

    def item(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.paths[path]
        if "$ref" in found:
            found = self.paths[found["$ref"].removeprefix("#/paths/").replace("~1", "/")]
        return found

    def test_every_route_is_described(self) -> None:
        """Each route has a path in the document, with its methods."""
        for route in routes():
            for prefix, verbs in (("", route.verbs), ("/upload", route.uploads)):
                if verbs:
                    path = prefix + route.label
                    self.assertIn(path, self.paths, "describe it in docs/openapi.yaml")
                    methods = {method.decode().lower() for method in verbs}
                    self.assertEqual(methods, METHODS & self.item(path).keys(), path)

    def test_every_route_in_the_code_is_described(self) -> None:
        """Also routes that are made in other modules."""
        described = set(self.paths) | {path.removeprefix("/upload") for path in self.paths}
        self.assertGreaterEqual(len(labels_in_code()), 10)
        self.assertEqual(set(), labels_in_code() - described, "describe it in docs/openapi.yaml")

    def test_no_path_is_described_that_is_none(self) -> None:
        """Each path in the document is a route, also below `/upload`."""
        known = labels_in_code() | {route.label for route in routes()}
        known |= {f"/upload{label}" for label in known}
        self.assertEqual(set(), set(self.paths) - known)

    def test_scopes(self) -> None:
        """A body is described exactly if the route reads one."""
        for route in routes():
            for method, verb in route.verbs.items():
                operation = self.item(route.label)[method.decode().lower()]
                self.assertEqual(verb.takes_body, "requestBody" in operation, route.label)

    def test_refusals(self) -> None:
        """Routes with a scope have the guard's answers; writes may be off."""
        for route in routes():
            for prefix, verbs in (("", route.verbs), ("/upload", route.uploads)):
                for method, verb in verbs.items():
                    told = self.item(prefix + route.label)[method.decode().lower()]["responses"]
                    if verb.scope is None or "default" in told:
                        continue
                    expected = {"401", "403", "429"}
                    if verb.scope is not Scope.READ and method != b"GET":
                        expected |= {"404", "405"} if "{" in route.label else {"405"}
                    self.assertLessEqual(expected, set(told), (method, prefix, route.label))

    def test_operations_can_be_told_apart(self) -> None:
        """Each has a unique name, a summary, a known tag and a successful answer."""
        names = []
        tags = {tag["name"] for tag in self.document["tags"]}
        for path, item in self.paths.items():
            for method in METHODS & item.keys():
                operation = item[method]
                names.append(operation["operationId"])
                self.assertTrue(operation["summary"].endswith("."), path)
                self.assertLessEqual(set(operation["tags"]), tags)
                self.assertTrue(any(code[0] == "2" for code in operation["responses"]), path)
        self.assertEqual(len(names), len(set(names)))

    def test_no_key_is_there_twice(self) -> None:
        """The parser would silently ignore the first one."""
        waiting: list[yaml.Node | None] = [yaml.compose(DOCUMENT.read_text(), yaml.SafeLoader)]
        while waiting:
            node = waiting.pop()
            if isinstance(node, yaml.MappingNode):
                keys = [key.value for key, _ in node.value]
                self.assertEqual(sorted(set(keys)), sorted(keys), str(node.start_mark))
                waiting += [value for _, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                waiting += node.value

    def test_references_lead_somewhere(self) -> None:
        """Each `$ref` names a part of the document."""
        for reference in set(re.findall(r'\$ref: "#/([^"]+)"', DOCUMENT.read_text())):
            part: Any = self.document
            for name in reference.split("/"):
                part = part[name.replace("~1", "/")]
            self.assertTrue(part)

    def test_patterns_are_those_of_the_routes(self) -> None:
        """Each path that the document allows matches its route."""
        schemas = self.document["components"]["schemas"]
        digest = re.compile(schemas["HashPart"]["pattern"])
        for text in ("0" * 32, "z" * 32, "e" * 32, "0" * 31, "A" * 32):
            taken = any(route.pattern.fullmatch(f"/{text}.narinfo".encode()) for route in routes())
            self.assertEqual(taken, digest.fullmatch(text) is not None, text)

    def test_values(self) -> None:
        """Version, limits and words are those of the program."""
        self.assertEqual(__version__, self.document["info"]["version"])
        self.assertEqual(
            [where.value for where in Where],
            self.document["components"]["schemas"]["Where"]["enum"],
        )
        question = self.paths["/api/v1/query"]["post"]["requestBody"]["content"]
        hashes = question["application/json"]["schema"]["properties"]["hashes"]
        self.assertEqual(MOST_HASHES, hashes["maxItems"])
        self.assertEqual(4, len(ClosurePath._fields))
