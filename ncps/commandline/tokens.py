"""The command `ncps token`, which makes, lists and revokes the tokens of clients.

It uses the database only, so it works beside running daemons, which notice a change within
seconds. A new token goes to standard output only; all messages go to standard error.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from ipaddress import IPv6Address
from typing import Any, Final

from ncps.aio.waiting import within
from ncps.assembly.databases import database, dialect
from ncps.auth.patterns import compiled
from ncps.auth.principal import Scope
from ncps.auth.tokens import PREFIX, digest_of, new_token
from ncps.commandline.once import check_owner, run_once
from ncps.commandline.parser import WrongWords
from ncps.database import migrate
from ncps.database.tokens import SqlTokens
from ncps.errors import Malformed, Refused
from ncps.observe.metrics import Metrics
from ncps.ports import Token, Tokens
from ncps.settings.kinds.values import duration
from ncps.settings.schema.tree import Settings

DEADLINE_S: Final = 30.0
NEVER: Final = "never"
_LONGEST: Final = timedelta(days=3650)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,63}", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", re.ASCII)
_DAYS: Final = re.compile(r"(\d{1,5})d", re.ASCII)
_LARGEST: Final = 4096

Act = Callable[[Tokens, Namespace], Coroutine[Any, Any, None]]


def command(options: Namespace, settings: Settings) -> int:
    """Run `ncps token`. Raises NcpsError if that fails, WrongWords if an argument is wrong."""
    step = options.command.partition(" ")[2]
    if step == "netrc":
        return _netrc(options)
    if step == "create":
        _check_words(options)
    engine = dialect(settings)
    _check_owner(settings)
    if migrate.status(engine).pending:
        raise Refused(
            "the database does not exist yet, or is of an earlier version: start ncps once, or "
            "run `ncps migrate up`"
        )

    async def work(reactor: Any) -> None:
        opened = database(reactor, settings, Metrics())
        opened.open()
        try:
            late = f"the database has not answered for {DEADLINE_S:g} s"
            act = _STEPS[step](SqlTokens(opened), options)
            await within(reactor, DEADLINE_S, act, late)
        finally:
            opened.close()

    return run_once(work)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _note(line: str) -> None:
    sys.stderr.write(f"ncps: {line}\n")


def _check_owner(settings: Settings) -> None:
    """Raise Refused if another user owns the database: new files beside it would be ours."""
    where = settings.cache.database_url
    if not where.is_file:
        return
    try:
        owner = where.path.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refused(f"{where.path} cannot be read: {error.strerror}") from error
    check_owner(where.path, owner, "use it any more")


def _check_words(options: Namespace) -> None:
    """Read the arguments of `create`. Raises WrongWords if one is wrong."""
    if not options.name:
        raise WrongWords("--name is missing: a name for the token, such as --name ci")
    if _NAME.fullmatch(options.name) is None or options.name.startswith(PREFIX):
        raise WrongWords("--name: should be letters, digits and . _ @ : -, at most 64")
    names = [name.strip() for name in options.scope.split(",")]
    known = [scope.value for scope in Scope]
    for name in names:
        if name not in known:
            raise WrongWords(f"--scope: {name[:64]!r} should be one of {', '.join(known)}")
    options.scope = frozenset(names)
    options.expires = _lifetime(options.expires)
    if options.netrc is not None:
        options.netrc = _machine(options.netrc, "--netrc")
    if options.path is not None:
        try:
            compiled(options.path)
        except Malformed as error:
            raise WrongWords(f"--path: {error}") from None


def _lifetime(text: str) -> timedelta | None:
    if text == NEVER:
        return None
    match = _DAYS.fullmatch(text)
    try:
        seconds = int(match[1]) * 86400.0 if match else float(str(duration().parse(text)))
        found = timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        raise WrongWords(f"--expires: should be days such as 90d, hours, or {NEVER}") from None
    if not timedelta(seconds=1) <= found <= _LONGEST:
        raise WrongWords(f"--expires: should be 1s to {_LONGEST.days}d, or {NEVER}")
    return found


def _machine(host: str, flag: str) -> str:
    """Return a host as curl compares it with lines of netrc: IPv6 addresses have no brackets."""
    if _HOST.fullmatch(host) is not None:
        return host
    try:
        if "%" in host:
            raise ValueError("a zone may hold any characters")
        return IPv6Address(host.removeprefix("[").removesuffix("]")).compressed
    except ValueError:
        raise WrongWords(
            f"{flag}: should be the host name in the URL of the cache, without a port"
        ) from None


async def _create(tokens: Tokens, options: Namespace) -> None:
    secret = new_token()
    now = (await tokens.table()).now
    token = Token(
        id=secrets.token_hex(4),
        name=options.name,
        digest=digest_of(secret),
        scopes=options.scope,
        path=options.path or "",
        created_at=now,
        expires_at=None if options.expires is None else now + options.expires,
    )
    await tokens.create(token)
    end = NEVER if token.expires_at is None else _moment(token.expires_at)
    _note(
        f"token {token.name} (id {token.id}) for {_scopes(token)}, expires: {end}."
        " It is shown only once."
    )
    _say(secret if options.netrc is None else _line(options.netrc, token.name, secret))


def _line(host: str, name: str, secret: str) -> str:
    return f"machine {host} login {name} password {secret}"


def _scopes(token: Token) -> str:
    return ",".join(scope.value for scope in Scope if scope.value in token.scopes)


def _moment(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def _state(token: Token, now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "valid"


async def _list(tokens: Tokens, options: Namespace) -> None:
    table = await tokens.table()
    if options.json:
        _say(json.dumps([_as_json(token, table.now) for token in table.tokens], indent=2))
        return
    if not table.tokens:
        _note("there are no tokens: `ncps token create` makes one")
        return
    rows = [("ID", "NAME", "SCOPES", "STATE", "EXPIRES", "LAST USED", "PATH")]
    for token in table.tokens:
        end = NEVER if token.expires_at is None else _moment(token.expires_at)
        state, used = _state(token, table.now), _moment(token.last_used_at)
        rows.append((token.id, token.name, _scopes(token), state, end, used, token.path or "-"))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        _say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _as_json(token: Token, now: datetime) -> dict[str, object]:
    times = {
        name: None if at is None else at.isoformat()
        for name, at in (
            ("created_at", token.created_at),
            ("expires_at", token.expires_at),
            ("revoked_at", token.revoked_at),
            ("last_used_at", token.last_used_at),
        )
    }
    return {
        "id": token.id,
        "name": token.name,
        "scopes": sorted(token.scopes),
        "path": token.path or None,
        "state": _state(token, now),
        **times,
    }


async def _revoke(tokens: Tokens, options: Namespace) -> None:
    if options.name.startswith(PREFIX):
        raise Refused("name the token or its id (`ncps token list`), not the token itself")
    found = await tokens.revoke(options.name)
    _say(f"token {found.name} (id {found.id}) was revoked at {_moment(found.revoked_at)}")


def _netrc(options: Namespace) -> int:
    if not options.host:
        raise WrongWords("--host is missing: the host name in the URL of the cache")
    options.host = _machine(options.host, "--host")
    if options.name.startswith(PREFIX):
        raise Refused(
            "other users can read a token in the command line: write - in its place, and give it "
            "on standard input"
        )
    if options.name != "-":
        _note("replace TOKEN by the token: the database has only its hash")
        _say(_line(options.host, options.name, "TOKEN"))
        return 0
    secret = sys.stdin.read(_LARGEST).strip()
    if not secret or re.search(r"[\s#]", secret):
        raise Refused("standard input is no token: it should be one word")
    _say(_line(options.host, "ncps", secret))
    return 0


_STEPS: Final[dict[str, Act]] = {"create": _create, "list": _list, "revoke": _revoke}
