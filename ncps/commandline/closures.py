"""The commands `ncps pin` and `ncps rm`, which keep closures and remove paths.

They ask a running daemon: only the daemon can tell its workers and replicas of a change, and only
it knows the NARs that are arriving.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from ncps.commandline.caller import Caller
from ncps.commandline.parser import WrongWords
from ncps.nix.base32 import ALPHABET
from ncps.settings.schema.tree import Settings
from ncps.settings.showing import quote

_DIGEST: Final = re.compile(rf"(?:.*/)?([{ALPHABET}]{{32}})(?:-[^/]*|\.narinfo)?")
BATCH: Final = 500
"""Paths in one request."""


def pin(options: Namespace, settings: Settings) -> int:
    """Run `ncps pin`. Raises NcpsError if that fails, WrongWords if an argument is wrong."""
    caller = Caller.of(options, settings)
    step = options.command.partition(" ")[2]
    if step == "list":
        return _list(caller, is_json=options.json)
    digests = _digests(options.paths)
    for digest in digests:
        if step == "rm":
            caller.ask("DELETE", f"/pin/{digest}.narinfo")
            _say(f"{digest} is no longer pinned")
            continue
        wishes = {"label": options.label, "expires": options.expires}
        query = {name: value for name, value in wishes.items() if value}
        if options.fetch:
            query["fetch"] = "1"
        _print_pin(caller.ask("POST", f"/pin/{digest}.narinfo?{urlencode(query)}".rstrip("?")))
    return 0


def remove(options: Namespace, settings: Settings) -> int:
    """Run `ncps rm`. Raises NcpsError if that fails, WrongWords if an argument is wrong."""
    caller = Caller.of(options, settings)
    if options.list_blocked:
        for block in caller.ask("GET", "/api/v1/blocked"):
            _say(f"{block['hash']}  {block['blocked']}  {block['name'] or '-'}")
        return 0
    digests = _digests(options.paths)
    if options.unblock:
        for digest in digests:
            caller.ask("DELETE", f"/api/v1/blocked/{digest}")
            _say(f"{digest} can be fetched again")
        return 0
    busy = 0
    for at in range(0, len(digests), BATCH):
        report = caller.ask(
            "POST",
            "/api/v1/remove",
            {
                "hashes": digests[at : at + BATCH],
                "closure": options.closure,
                "never_again": options.never_again,
                "dry_run": options.dry_run,
                "force": options.force,
            },
        )
        _tell_removed(report, dry_run=options.dry_run)
        busy += len(report["busy"])
    return 1 if busy else 0


def _paths(count: int) -> str:
    return "1 path" if count == 1 else f"{count} paths"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _note(line: str) -> None:
    sys.stderr.write(f"ncps: {line}\n")


def _digests(paths: Sequence[str]) -> list[str]:
    """Return the hash parts of store paths, of URLs of narinfos, or of plain hash parts."""
    if not paths:
        raise WrongWords(
            "name a path: /nix/store/HASH-NAME, its hash part, or the URL of a narinfo"
        )
    found = []
    for path in paths:
        match = _DIGEST.fullmatch(path.rstrip("/"))
        if match is None:
            raise WrongWords(
                f"{quote(path)} should be a store path, a hash part of 32 characters, or the URL"
                " of a narinfo"
            )
        found.append(match[1])
    return list(dict.fromkeys(found))


def _list(caller: Caller, *, is_json: bool) -> int:
    pins = caller.ask("GET", "/pins?details=1")
    if is_json:
        _say(json.dumps(pins, indent=2, ensure_ascii=False))
        return 0
    if not pins:
        _note("there are no pins: `ncps pin add PATH` makes one")
    for each in pins:
        _say(
            f"{each['hash']}  {_paths(each['paths'])}, {each['missing']} missing,"
            f" {each['size']} bytes  until {each['expires'] or 'removed'}  {each['label']}".rstrip()
        )
    return 0


def _print_pin(pin: dict[str, Any]) -> None:
    _say(f"{pin['hash']} is pinned: {_paths(pin['paths'])}, {pin['missing']} missing")
    for path in pin["missingPaths"]:
        _say(f"missing {path}")
    if len(pin["missingPaths"]) < pin["missing"]:
        _note(f"{pin['missing'] - len(pin['missingPaths'])} more are missing")


def _tell_removed(report: dict[str, Any], *, dry_run: bool) -> None:
    word = "would remove" if dry_run else "removed"
    for path in report["removed"]:
        _say(f"{word} {path}")
    if len(report["removed"]) < report["count"]:
        _note(f"{word} {report['count'] - len(report['removed'])} more paths")
    for path in report["busy"]:
        _note(f"{path} stays: another process is fetching it; try again")
    kept = f", {report['kept']} stay because other paths need them" if report["kept"] else ""
    _note(f"{word} {report['count']} paths ({report['size']} bytes){kept}")
