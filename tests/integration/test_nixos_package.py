"""Our package for Nix has all that pyproject.toml requires, and the flake has its outputs."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from twisted.trial.unittest import SynchronousTestCase

from tests.nixos.evaluating import HERE, ROOT, nix_instantiate

PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final = ("postgresql", "mysql", "otel")
_DESCRIBED: Final = re.compile(
    r'^    ([\w-]+) = (?:wheel|source) \{.*?minimum = [^"]*"(?:boto3" [^"]*")?([\d.]+)"',
    re.MULTILINE | re.DOTALL,
)


def requirements() -> dict[str, str]:
    """Return the oldest allowed version of each package of the program, with all extras."""
    extras = [line for name in EXTRAS for line in PROJECT["optional-dependencies"][name]]
    found = map(Requirement, (*PROJECT["dependencies"], *extras))
    return {
        canonicalize_name(each.name): next(
            part.version for part in each.specifier if part.operator == ">="
        )
        for each in found
    }


def evaluated(name: str, *words: str) -> Any:
    return json.loads(nix_instantiate("--eval", "--strict", "--json", str(HERE / name), *words))


def of_nixpkgs(version: str) -> dict[str, Any]:
    """Return our package for a nixpkgs with this version of all packages that we describe."""
    found: dict[str, Any] = evaluated("packages.nix", "--argstr", "version", version)
    return found


class PackageTests(SynchronousTestCase):
    def test_it_has_what_the_project_needs(self) -> None:
        """No package is missing, also of the extras, and none is too old."""
        found = of_nixpkgs("0")["packages"]
        packages: dict[str, Any] = {canonicalize_name(each["pname"]): each for each in found}
        for name, minimum in requirements().items():
            self.assertIn(name, packages, "enter it in nix/package.nix")
            self.assertIsNotNone(packages[name]["source"])
            self.assertGreaterEqual(Version(packages[name]["version"]), Version(minimum))

    def test_it_asks_for_no_other_versions(self) -> None:
        """A package of nixpkgs is used exactly if pyproject.toml allows its version."""
        text = (ROOT / "nix" / "python-packages.nix").read_text()
        minimums = dict(_DESCRIBED.findall(text))
        for name, minimum in requirements().items():
            self.assertEqual(minimum, minimums[name], name)

    def test_packages_that_are_new_enough_stay(self) -> None:
        """No package of nixpkgs is replaced by an older one."""
        sources = [each["source"] for each in of_nixpkgs("999")["packages"]]
        self.assertEqual([None] * len(sources), sources)

    def test_the_version_is_that_of_the_program(self) -> None:
        """The version is written in one place only."""
        found = of_nixpkgs("999")
        self.assertIn(
            f'__version__ = "{found["version"]}"', (ROOT / "ncps/__init__.py").read_text()
        )
        self.assertTrue(all((ROOT / name).exists() for name in found["files"]), found["files"])


class FlakeTests(SynchronousTestCase):
    def test_its_outputs(self) -> None:
        """They are packages, modules, an overlay, checks and a shell."""
        found = evaluated("flake.nix")
        wanted = {"packages", "nixosModules", "overlays", "checks", "devShells", "formatter"}
        self.assertEqual(wanted, set(found["outputs"]))
        self.assertEqual(["default", "ncps"], found["outputs"]["nixosModules"])
        self.assertEqual("package", found["package"])
        self.assertEqual(["package"], found["shell"]["inputsFrom"])

    def test_its_machines(self) -> None:
        """There are three tests with machines, in Python, which name machines that exist."""
        found = evaluated("flake.nix")
        self.assertEqual(["package", "plain", "postgresql", "s3"], found["checks"])
        for name, script in found["scripts"].items():
            tree = ast.parse(script)
            used = {
                node.func.value.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
            }
            self.assertEqual(set(found["machines"][name]), used)
