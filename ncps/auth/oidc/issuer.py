"""Issuer: fetches the public keys of one issuer of tokens when they are needed, and keeps them.

    a key is wanted
      known, keys younger than FRESH_S                      -> return it
      known, keys younger than STALE_S                      -> return it; fetch the keys besides
      not known, and no fetch within REST_S or RETRY_S      -> fetch the keys, once for all callers
      not known, and a fetch has just ended or failed       -> Unavailable for the moment
      not known, or older than STALE_S, issuer away         -> Unavailable

So for `STALE_S` seconds, an issuer that is away has no effect. Tokens that name unknown keys make
ncps ask the issuer only once in `REST_S` seconds.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.single_flight import SingleFlight
from ncps.aio.tasks import Tasks
from ncps.auth.oidc.jwt import read_object
from ncps.auth.oidc.keys import IssuerKey, KeySet, read_keys
from ncps.errors import Corrupt, Malformed, NcpsError, Unavailable
from ncps.observe.metrics import Metrics
from ncps.ports.documents import Documents
from ncps.settings.kinds.auth import is_loopback

FRESH_S: Final = 600.0
"""Seconds after which keys are fetched again, if they are used."""

STALE_S: Final = 24 * 3600.0
"""Seconds for which keys are valid while the issuer cannot be asked."""

REST_S: Final = 30.0
"""Seconds between a successful fetch and the next one, at least."""

RETRY_S: Final = 5.0
"""Seconds between a failed fetch and the next one, at least."""

_PATH: Final = "/.well-known/openid-configuration"


class Issuer:
    """One issuer.

    :param url: its URL, as in the claim `iss` of its tokens.
    :param documents: fetches its documents.
    :param tasks: own the fetches.
    """

    _log = Logger()

    def __init__(
        self, url: str, documents: Documents, clock: IReactorTime, tasks: Tasks, metrics: Metrics
    ) -> None:
        self.url = url
        self.host = urlsplit(url).hostname or ""
        self._documents = documents
        self._clock = clock
        self._flight: SingleFlight[str, None] = SingleFlight(tasks, "keys of")
        self._tasks = tasks
        self._metrics = metrics
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._tried_at: float | None = None  # when the last fetch began
        self._trouble = ""

    @property
    def _age_s(self) -> float:
        return self._clock.seconds() - self._fetched_at

    def warnings(self) -> list[str]:
        """Return the warnings for operators: whether the keys cannot be fetched."""
        return [f"issuer {self.url}: {self._trouble}"] if self._trouble else []

    async def find_key(self, key_id: str | None, algorithm: str) -> IssuerKey | None:
        """Return the key that a token names; None if the issuer surely has no such key.

        Raises Unavailable if that is unknown now.
        """
        found = self._known(key_id, algorithm)
        if found is not None:
            if self._age_s > FRESH_S and self._rest_s <= 0:
                self._tasks.start(f"keys of {self.url}", self._refresh())
            return found
        if self._rest_s > 0 and self.url not in self._flight:
            raise self._unsure()
        try:
            await self._flight.join(self.url, self._fetch)
        except Corrupt as error:
            raise Unavailable(f"issuer {self.url}: {error}", kind="corrupt") from error
        return self._known(key_id, algorithm)

    def _known(self, key_id: str | None, algorithm: str) -> IssuerKey | None:
        if self._keys is None or self._age_s > STALE_S:
            return None
        return self._keys.find(key_id, algorithm)

    @property
    def _rest_s(self) -> float:
        """Seconds until the issuer may be asked again."""
        if self._tried_at is None:
            return 0.0
        rest_s = RETRY_S if self._trouble else REST_S
        return self._tried_at + rest_s - self._clock.seconds()

    def _unsure(self) -> Unavailable:
        reason = self._trouble or "it has just been asked, and has not named the token's key"
        return Unavailable(f"issuer {self.url}: {reason}", retry_after=self._rest_s)

    async def _refresh(self) -> None:
        """Fetch the keys in the background; the present keys stay valid until then."""
        try:
            await self._flight.join(self.url, self._fetch)
        except NcpsError:
            return  # `_fetch` has logged it

    async def _fetch(self) -> None:
        self._tried_at = self._clock.seconds()
        try:
            keys = await self._read()
        except (Corrupt, Unavailable) as error:
            self._metrics.oidc_fetches("failed").inc()
            if str(error) != self._trouble:
                self._log.warn(
                    "the keys of issuer {issuer} cannot be fetched: {reason}",
                    issuer=self.url,
                    reason=str(error),
                )
            self._trouble = str(error)
            raise
        self._metrics.oidc_fetches("done").inc()
        if self._keys is None or self._trouble:
            self._log.info(
                "issuer {issuer} has {count} keys for tokens; {ignored} others are of no use here",
                issuer=self.url,
                count=len(keys),
                ignored=keys.ignored,
            )
        self._keys, self._fetched_at, self._trouble = keys, self._clock.seconds(), ""

    async def _read(self) -> KeySet:
        """Fetch both documents. Raises Unavailable if one is missing, Corrupt if one is wrong."""
        data = await self._documents.fetch(self.url.rstrip("/") + _PATH)
        try:
            described = read_object(data, "the document of the issuer")
        except Malformed as error:
            raise Corrupt(str(error), kind="malformed") from None
        if described.get("issuer") != self.url:
            raise Corrupt("the document of the issuer names another issuer", kind="malformed")
        return read_keys(await self._documents.fetch(self._keys_url(described.get("jwks_uri"))))

    def _keys_url(self, given: object) -> str:
        """Return the URL of the keys. Raises Corrupt if it is no https URL."""
        if not isinstance(given, str) or not given.isascii() or not given.isprintable():
            raise Corrupt("the document of the issuer does not say where its keys are")
        try:
            parts = urlsplit(given)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            host = ""
        is_local = is_loopback(self.host) and is_loopback(host)
        if not host or parts.scheme not in ({"http", "https"} if is_local else {"https"}):
            raise Corrupt("the document of the issuer names no https:// address for its keys")
        if parts.username is not None or " " in given:
            raise Corrupt("the document of the issuer names no proper address for its keys")
        return given
