"""Evaluates modules of NixOS, and returns how a unit would start its programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from attrs import asdict, frozen

from tests.services import require

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
KEPT: Final = ROOT / "tests" / "fixtures" / "nixos"
MODULE: Final = ROOT / "nix" / "module.nix"
DEADLINE: Final = 300.0
CREDENTIALS: Final = "/run/credentials/ncps.service"
"""The directory in which systemd puts the credentials of a unit."""

Evaluated = Mapping[str, Any]
"""A result of `evaluate.nix` for one set of options."""

_FILE: Final = re.compile(r"@<((?:(?!@<|>@).)*)>@", re.DOTALL)
_PROGRAM: Final = """\
#!/bin/sh
printf '%s\\n' "$@" >{noted}.arguments
exec env -0 >{noted}.environment
"""


@frozen(kw_only=True)
class Call:
    """A call of a program by a unit.

    :param environment: its variables; the content of the credential NAME is `<NAME>` here.
    """

    arguments: list[str]
    environment: dict[str, str]


@frozen(kw_only=True)
class Unit:
    """The parts of an evaluated unit that matter for a program.

    :param options: the set of options.
    :param before: the program that brings the schema up to date, if any.
    :param config: the content of the configuration file.
    :param credentials: source files by name.
    :param directories: that it may write to, beside its own temporary ones.
    """

    options: dict[str, Any]
    before: Call | None
    serve: Call
    config: dict[str, Any]
    credentials: dict[str, str]
    directories: list[str]


@frozen(kw_only=True)
class Written:
    """A text of a unit whose files exist, and the commands that check them during the build."""

    text: str
    check: str


def nix_instantiate(*arguments: str) -> str:
    """Return its output. Raises AssertionError with its errors."""
    require(shutil.which("nix-instantiate"), "nix-instantiate (package nix-bin)")
    done = subprocess.run(
        ("nix-instantiate", *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def nixpkgs_lib() -> Path | None:
    """Return the folder with the lib of nixpkgs, if the machine has one."""
    named = os.environ.get("NCPS_NIXPKGS_LIB")
    return Path(named).absolute() if named else None


def evaluate(module: Path, sets: Path) -> dict[str, Evaluated]:
    """Evaluate a module for each set of options. Raises AssertionError if that fails."""
    lib = nixpkgs_lib()
    assert lib is not None, "NCPS_NIXPKGS_LIB must name a folder with the lib of nixpkgs"
    given = {"lib": lib, "module": module, "sets": sets}
    words = [word for name, path in given.items() for word in ("--arg", name, str(path))]
    text = nix_instantiate("--eval", "--strict", "--json", str(HERE / "evaluate.nix"), *words)
    found: dict[str, Evaluated] = json.loads(text)
    return found


def fingerprint() -> str:
    """Return a hash of all inputs of the evaluation of our module, except nixpkgs."""
    names = ("evaluate.nix", "sets.nix", "nixpkgs_sets.nix")
    texts = [path.read_bytes() for path in (MODULE, *(HERE / name for name in names))]
    return sha256(b"\0".join(texts)).hexdigest()


def unit_of(found: Evaluated) -> Unit:
    """Run the programs of an evaluated unit in place of ncps, and record their calls."""
    service = found["service"]
    directives = service["serviceConfig"]
    credentials = dict(
        item.partition(":")[::2] for item in _listed(directives.get("LoadCredential", []))
    )
    state = [f"/var/lib/{name}" for name in _listed(directives.get("StateDirectory", []))]
    with TemporaryDirectory(prefix="ncps-nixos-") as name:
        directory = Path(name)
        (directory / "credentials").mkdir()
        for credential in credentials:
            (directory / "credentials" / credential).write_text(f"<{credential}>")
        before = _call(service["preStart"], "dbmate-ncps", service, directory)
        serve = _call(directives["ExecStart"], "ncps", service, directory)
        assert serve is not None
        config = serve.arguments.index("--config") + 1
        text = Path(serve.arguments[config]).read_text()
        serve.arguments[config] = "@config@"
    return Unit(
        options=found["options"],
        before=before,
        serve=serve,
        config=json.loads(text),
        credentials=credentials,
        directories=[*state, *_listed(directives.get("ReadWritePaths", []))],
    )


def written(text: str, directory: Path, package: Path) -> Written:
    """Write the files of an evaluated text; return the text with their names.

    :param package: takes the place of the package.
    """
    text = text.replace("@package@", str(package))
    checks = []
    while match := _FILE.search(text):
        file = directory / f"file{len(list(directory.iterdir()))}"
        content, _, check = match[1].partition("@check@")
        is_script = content.lstrip().startswith(("export ", "exec "))
        file.write_text("#!/bin/sh\n" * is_script + content)
        file.chmod(0o700)
        checks.append(check)
        text = text[: match.start()] + str(file) + text[match.end() :]
    return Written(text=text, check="\n".join(filter(None, checks)))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _call(text: str, program: str, service: Evaluated, directory: Path) -> Call | None:
    """Run a line of the unit; return its call of the program, None if there is none."""
    noted = directory / f"{program}-noted"
    path = directory / "package" / "bin" / program
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PROGRAM.format(noted=noted))
    path.chmod(0o700)
    text = written(text, directory, path.parents[1]).text
    variables = {**service["environment"], "CREDENTIALS_DIRECTORY": str(directory / "credentials")}
    subprocess.run(
        ("sh", "-euc", text),
        env={"PATH": os.environ["PATH"], **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=DEADLINE,
        check=True,
    )
    arguments = noted.with_suffix(".arguments")
    if not arguments.exists():
        return None
    seen = noted.with_suffix(".environment").read_text().rstrip("\0").split("\0")
    environment = {
        name: value.replace(str(directory / "credentials"), CREDENTIALS)
        for name, _, value in (item.partition("=") for item in seen)
        if name.startswith("CACHE_") or name == "DATABASE_URL"
    }
    return Call(arguments=arguments.read_text().splitlines(), environment=environment)


def ours() -> dict[str, Evaluated]:
    """Return the results for our own module: evaluated again, or else the kept ones.

    Raises AssertionError if the kept ones are of another module.
    """
    if nixpkgs_lib() is not None:
        return evaluate(MODULE, HERE / "sets.nix")
    kept = json.loads((KEPT / "ours.json").read_text())
    assert kept["of"] == fingerprint(), "made before a change: python -m tests.nixos ours"
    found: dict[str, Evaluated] = kept["evaluated"]
    return found


def of_nixpkgs() -> dict[str, Unit]:
    """Return the kept units of the module of nixpkgs."""
    kept = json.loads((KEPT / "nixpkgs.json").read_text())["units"]
    return {
        key: Unit(
            **{
                **unit,
                "before": unit["before"] and Call(**unit["before"]),
                "serve": Call(**unit["serve"]),
            }
        )
        for key, unit in kept.items()
    }


def keep(name: str, **parts: Any) -> None:
    """Write a result for the tests."""
    text = json.dumps(parts, indent=1, sort_keys=True, default=asdict)
    (KEPT / f"{name}.json").write_text(f"{text}\n")
