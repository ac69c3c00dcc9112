"""The command `ncps keys`, which shows, makes, imports and replaces the key in the store.

It reads and writes the store only, so it works beside running daemons. These notice a rotation by
themselves and report it in `/readyz`; they use the new key after a reload or restart.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ncps.aio.waiting import within
from ncps.assembly.keys import imported_key, key_in
from ncps.assembly.stores import stores
from ncps.cache.upkeep.identity import NAME, former_keys, parse_key
from ncps.cache.upkeep.rotation import Rotation, rotate
from ncps.commandline.once import check_owner, run_once
from ncps.commandline.parser import WrongWords
from ncps.errors import Malformed, Refused
from ncps.nix.keys import SecretKey
from ncps.observe.metrics import Metrics
from ncps.ports import ConfigStore
from ncps.settings.kinds.values import duration
from ncps.settings.schema.tree import Settings
from ncps.storage import keys

DEADLINE_S: Final = 120.0
_MAKERS: Final = "`ncps keys generate` or the first start makes it"
_LONGEST: Final = timedelta(days=3650)
_LARGEST: Final = 64 * 1024

Act = Callable[[ConfigStore, Settings, Namespace], Coroutine[Any, Any, None]]


def command(settings: Settings, options: Namespace) -> int:
    """Run `ncps keys`. Raises NcpsError if that fails, WrongWords if an argument is wrong."""
    step = options.command.partition(" ")[2]
    if step == "generate" and options.output is not None:
        _into_file(Path(options.output), options.name or settings.cache.hostname)
        return 0
    if step == "rotate":
        options.overlap = _overlap(options.overlap)
    return _with_store(settings, options, _STEPS[step])


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _into_file(path: Path, name: str) -> None:
    """Make a key in a new file that only its owner can read."""
    key = SecretKey.generate(name)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(key.export())
            file.flush()
            os.fsync(fd)
    except FileExistsError:
        raise Refused(f"{path} exists: name a new file with --output") from None
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
    _say(str(key.public))


def _with_store(settings: Settings, options: Namespace, act: Act) -> int:
    """Open the store, act within the deadline, and close it. Raises NcpsError if that fails."""

    makes = act in (_generate, _import)
    _check_directory(settings, makes=makes)

    async def work(reactor: Any) -> None:
        opened = stores(reactor, settings, Metrics())
        if makes:
            opened.probe()  # makes the directories; it blocks, and nothing else runs
        opened.start()
        try:
            late = f"the storage has not answered for {DEADLINE_S:g} s"
            await within(reactor, DEADLINE_S, act(opened.config, settings, options), late)
        finally:
            await opened.stop(5.0)

    return run_once(work)


def _check_directory(settings: Settings, *, makes: bool) -> None:
    """Raise Refused if there is no store yet, or if another user owns it."""
    root = settings.cache.storage.local
    if root is None:
        return
    try:
        owner = root.stat().st_uid if makes else (root / keys.NARS).stat().st_uid
    except FileNotFoundError:
        if makes:
            return
        raise Refused(
            f"there is no store at {root} yet, or its disk is not mounted: {_MAKERS}"
        ) from None
    except OSError as error:
        raise Refused(f"{root} cannot be read: {error.strerror}") from error
    check_owner(root, owner, "read the key")


async def _show(config: ConfigStore, settings: Settings, options: Namespace) -> None:
    del options
    imported = imported_key(settings)
    value = await config.get(NAME)
    if imported is None and value is None:
        raise Refused(f"the store has no key yet: {_MAKERS}")
    kept = None if value is None else parse_key(value)
    present = kept if imported is None else SecretKey.parse(imported)
    assert present is not None
    now = datetime.now(UTC)
    note = "" if settings.cache.sign_narinfo else "  (but cache-sign-narinfo is false)"
    _say(f"{present.public}  signs{note}")
    for each in await former_keys(config):
        if each.public != str(present.public):
            word = "signs until" if now < each.until else "has signed until"
            _say(f"{each.public}  {word} {_moment(each.until)}")
    if kept is not None and kept.public != present.public:
        _say(f"{kept.public}  is in the store, but cache-secret-key-path overrides it")


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


async def _generate(config: ConfigStore, settings: Settings, options: Namespace) -> None:
    await _first(config, settings, SecretKey.generate(options.name or settings.cache.hostname))


async def _import(config: ConfigStore, settings: Settings, options: Namespace) -> None:
    await _first(config, settings, _given(options.file))


async def _first(config: ConfigStore, settings: Settings, key: SecretKey) -> None:
    """Put the first key into the store. Raises Refused if it has another key."""
    _check_import(settings, key)
    there = parse_key(await config.create(NAME, key.export().encode()))
    if there.public != key.public:
        raise Refused(
            f"the store already has the key {there.public}: `ncps keys rotate` replaces it"
        )
    _say(str(there.public))


def _check_import(settings: Settings, present: SecretKey) -> None:
    """Raise Refused if `cache-secret-key-path` overrides the key of the store."""
    imported = imported_key(settings)
    if imported is not None and SecretKey.parse(imported).public != present.public:
        raise Refused(
            f"cache-secret-key-path gives {SecretKey.parse(imported).public}, which overrides"
            " the key in the store: leave that setting out first"
        )


async def _rotate(config: ConfigStore, settings: Settings, options: Namespace) -> None:
    wish = Rotation(
        successor=None if options.to is None else _given(options.to),
        overlap=options.overlap,
        again=options.again,
    )
    value = await config.get(NAME)
    if value is not None:
        _check_import(settings, parse_key(value))
    new, former = await rotate(config, wish, datetime.now(UTC).replace(microsecond=0))
    _say(f"{new}  signs after a reload or restart of the daemons")
    if former.until > former.since:
        _say(f"{former.public}  also signs until {_moment(former.until)}")
        _say("Add the new key to trusted-public-keys of all clients before that time.")
    else:
        _say(f"{former.public}  no longer signs after that")
        _say("Replace the former key by the new one in trusted-public-keys of all clients now.")
    if settings.cache.secret_key_path is not None:
        _say(
            "cache-secret-key-path still gives the former key: leave that setting out, or the"
            " daemons go on signing with the former key."
        )


def _overlap(text: str) -> timedelta:
    """Read the duration of the flag. Raises WrongWords if it is none, or is too long."""
    kind = duration()
    try:
        found = timedelta(seconds=float(str(kind.parse(text))))
    except (ValueError, OverflowError):
        raise WrongWords(f"--overlap: should be {kind.expected}") from None
    if found > _LONGEST:
        raise WrongWords(f"--overlap: should be at most {_LONGEST.days * 24}h")
    return found


def _given(name: str) -> SecretKey:
    """Read a key from a file, or from standard input."""
    if name != "-":
        return key_in(Path(name))
    try:
        return SecretKey.parse(sys.stdin.read(_LARGEST))
    except (Malformed, UnicodeDecodeError):
        raise Refused("standard input is not a secret key of Nix (name:base64, 64 bytes)") from None


_STEPS: Final[dict[str, Act]] = {
    "show": _show,
    "generate": _generate,
    "import": _import,
    "rotate": _rotate,
}
