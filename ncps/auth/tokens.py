"""Tokens: the tokens of the database as a source of credentials, and making a token.

All tokens are held in memory, by their SHA-256. A token has 256 random bits, so the time of a
look-up reveals nothing: a client cannot choose a token whose hash is close to that of another one.
For the same reason a plain SHA-256 is enough, without salt and iterations.

Each process asks for the number of the last change every `LOOK_S` seconds. For an unknown token it
asks once more, because somebody may have made the token just before the request. While the database
is away, a process believes the tokens that it has read for a time. After that it answers that it
cannot tell.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from math import inf
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.clocks import wall_of
from ncps.aio.single_flight import SingleFlight
from ncps.aio.tasks import Tasks
from ncps.aio.waiting import sleep, within
from ncps.auth.credentials import Credentials, WrongCredentials
from ncps.auth.patterns import compiled
from ncps.auth.principal import Principal, Scope
from ncps.errors import Malformed, NcpsError
from ncps.ports import Token, Tokens, TokenTable

PREFIX: Final = "ncps_"
"""The beginning of each token, by which scanners for secrets find tokens."""
LOOK_S: Final = 2.0
"""Seconds between two looks at the number of the last change."""
SOON_S: Final = 0.2
"""Seconds between two looks for unknown tokens."""
DEADLINE_S: Final = 5.0
"""Seconds that the database may take for an answer, because a client may wait for it."""

_SCOPES: Final = {scope.value: scope for scope in Scope}
_log = Logger()


def new_token() -> str:
    """Make a token: 256 random bits after the prefix."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    """Return the hash of a token, which is stored in its place."""
    return sha256(token.encode()).hexdigest()


def principal_of(token: Token) -> Principal:
    """Return the client that has a token. Raises Malformed if the token's pattern is not allowed.

    Ignores scopes that only a later version knows.
    """
    scopes = frozenset(_SCOPES[name] for name in token.scopes if name in _SCOPES)
    paths = compiled(token.path) if token.path else None
    return Principal(name=token.name, scopes=scopes, paths=paths)


@frozen
class _Living:
    """A token that was not revoked when it was read.

    :param until: the time at which it expires, in seconds since 1970.
    """

    id: str
    principal: Principal
    until: float


class DatabaseTokens:
    """Knows the clients that have a token of the database. See `CredentialSource`.

    :param max_age_s: seconds for which the tokens are believed while the database is away.
    :ivar max_age_s: the same; a reload changes it.
    """

    name = "token"

    def __init__(
        self, tokens: Tokens, clock: IReactorTime, tasks: Tasks, *, max_age_s: float
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._wall: Callable[[], float] = wall_of(clock)
        self.max_age_s = max_age_s
        self._flights: SingleFlight[str, None] = SingleFlight(tasks, "reading")
        self._version = -1
        self._began_at = self._read_at = -inf
        self._is_away = False
        self._living: dict[bytes, _Living] = {}
        self._revoked: set[bytes] = set()
        self._uses: dict[str, float] = {}

    @property
    def is_configured(self) -> bool | None:
        """Whether a token was ever made: expiry of the last token opens no verb to everybody.

        While the database is away, False is believed for `max_age_s` seconds, like a token.
        """
        if self._version > 0:
            return True
        return False if self._version == 0 and self._is_believed else None

    @property
    def trouble(self) -> str:
        """Why this source cannot check tokens now; empty if it can."""
        if self._is_believed:
            return ""
        return "the database is away: nobody can tell which tokens are right"

    @property
    def _is_believed(self) -> bool:
        return self._clock.seconds() - self._read_at <= self.max_age_s

    def recall(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        secret = credentials.secret
        if not secret.startswith(PREFIX):
            return None
        found = self._living.get(sha256(secret.encode()).digest())
        if found is None or not self._is_believed:
            return None
        now = self._wall()
        if now >= found.until:
            return None
        self._uses[found.id] = now
        return found.principal

    async def identify(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        secret = credentials.secret
        if not secret.startswith(PREFIX):
            return None
        digest = sha256(secret.encode()).digest()
        self._refuse_ended(digest)
        asked_at = self._clock.seconds()
        while self._began_at < asked_at:  # an earlier read may not have seen a new token
            await self._flights.join("tokens", self._read_soon)
        self._refuse_ended(digest)
        found = self.recall(credentials)
        if found is None:
            raise WrongCredentials("there is no such token", "unknown")
        return found

    def _refuse_ended(self, digest: bytes) -> None:
        """Raise WrongCredentials for a revoked or expired token, which stays so for ever."""
        if digest in self._revoked:
            raise WrongCredentials("the token has been revoked", "revoked")
        found = self._living.get(digest)
        if found is not None and self._wall() >= found.until:
            raise WrongCredentials("the token has expired", "expired")

    async def look(self) -> None:
        """Read the table if it has changed; call this every `LOOK_S` seconds."""
        try:
            await self._flights.join("tokens", self._read)
        except NcpsError as error:
            if not self._is_away:
                _log.warn(
                    "tokens cannot be read; known ones stay valid for {seconds} s: {reason}",
                    seconds=round(self.max_age_s),
                    reason=str(error),
                )
            self._is_away = True

    async def _read_soon(self) -> None:
        rest_s = self._began_at + SOON_S - self._clock.seconds()
        if rest_s > 0:
            await sleep(self._clock, rest_s)
        await self._read()

    async def _read(self) -> None:
        began_at = self._clock.seconds()
        late = f"the database has not answered about tokens for {DEADLINE_S:g} s"
        version = await within(self._clock, DEADLINE_S, self._tokens.version(), late)
        if version != self._version:
            self._take(await within(self._clock, DEADLINE_S, self._tokens.table(), late))
        self._began_at, self._read_at = began_at, self._clock.seconds()
        if self._is_away:
            self._is_away = False
            _log.info("tokens can be read again")

    def _take(self, table: TokenTable) -> None:
        living: dict[bytes, _Living] = {}
        revoked: set[bytes] = set()
        for token in table.tokens:
            try:
                digest = bytes.fromhex(token.digest)
                principal = principal_of(token)
            except (ValueError, Malformed) as error:
                _log.error("token {id} cannot be used: {reason}", id=token.id, reason=str(error))
                continue
            if token.revoked_at is not None:
                revoked.add(digest)
            else:
                until = inf if token.expires_at is None else token.expires_at.timestamp()
                living[digest] = _Living(token.id, principal, until)
        self._living, self._revoked, self._version = living, revoked, table.version

    async def flush(self) -> None:
        """Write the times of last use of tokens. Raises Unavailable if the database is away."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self._tokens.touch(
                {key: datetime.fromtimestamp(at, UTC) for key, at in uses.items()}
            )
        except NcpsError:
            self._uses = uses | self._uses
            raise


class StaticToken:
    """Knows the one token of the settings (`cache-get-token`), which is for reading.

    :param token: the token itself.
    """

    name = "static"
    is_configured = True

    def __init__(self, token: str) -> None:
        self._digest = sha256(token.encode()).digest()
        self._principal = Principal(
            name="cache-get-token", scopes=frozenset({Scope.READ}), source=self.name
        )

    def recall(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`. Its duration reveals nothing, not even the token's length."""
        shown = sha256(credentials.secret.encode()).digest()
        return self._principal if secrets.compare_digest(shown, self._digest) else None

    async def identify(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`. None: `recall` knows all clients of this source."""
        del credentials
        return None
