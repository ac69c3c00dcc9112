"""Requests of a command to a running daemon over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
from argparse import Namespace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen

from ncps.commandline.parser import WrongWords
from ncps.errors import NcpsError, Refused, Unavailable
from ncps.settings.schema.tree import Settings
from ncps.settings.showing import existing, quote

_PORTS: Final = {"http": 80, "https": 443}
TOKEN: Final = "NCPS_TOKEN"  # noqa: S105 - the name of a variable
"""The variable that holds the token, so that no process list shows it."""
TIMEOUT_S: Final = 600.0
"""Longest time between two bytes of an answer: a closure of many thousand paths takes minutes."""
_ENDPOINT: Final = re.compile(r"tcp6?:(\d+)(?::interface=((?:\\:|[^:])*))?(?::.*)?", re.ASCII)
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - addresses to be called
_LARGEST: Final = 64 * 1024 * 1024
_LONGEST_TOKEN: Final = 16 * 1024


@frozen(kw_only=True)
class Caller:
    """A client of one daemon.

    :param url: the base URL of the daemon.
    """

    url: str
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, options: Namespace, settings: Settings) -> Caller:
        """Make it from `--server`, `--token-file`, the environment and the settings."""
        url = options.server or _own_url(settings)
        return cls(url=url.rstrip("/"), token=_token(options.token_file))

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer: a value from JSON, or None if it is empty.

        Raises Refused, with the text of the daemon, if its status is an error, and Unavailable if
        it does not answer.
        """
        scheme, host, port, prefix = _parts(self.url)
        headers = {"Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        try:
            connection = _connection(scheme, host, port)
            try:
                connection.request(method, prefix + path, data, headers)
                response = connection.getresponse()
                text = response.read(_LARGEST)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"no daemon answers at {quote(self.url)}: {error}; start it, or name another with"
                " --server"
            ) from error
        return _read(response.status, text)


def _parts(url: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and path of a URL. Raises WrongWords if one is wrong."""
    try:
        parts = urlsplit(url)
        port, host = parts.port or _PORTS.get(parts.scheme), parts.hostname or ""
        host.encode("idna")  # raises here the ValueError that the connection would raise
    except ValueError:
        port, host = None, ""
    if port is None or not host or parts.scheme not in _PORTS:
        raise WrongWords(f"--server: should be http://HOST:PORT, not {quote(url)}")
    return parts.scheme, host, port, parts.path


def _connection(scheme: str, host: str, port: int) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)


def _read(status: int, text: bytes) -> Any:
    if 200 <= status < 300:
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise NcpsError("the answer is not JSON: is the server ncps?") from None
    said = text.decode("utf-8", "replace").strip()[:2000]
    hint = ""
    if status in {401, 403, 405}:
        hint = f" (give the token in the file of --token-file, or in {TOKEN})"
    raise Refused(f"the daemon answers {status}: {said}{hint}")


def _token(file: str | None) -> str:
    """Read the token. Raises Refused if the text cannot be sent in a header."""
    if file is None:
        place, token = f"environment {TOKEN}", os.environ.get(TOKEN, "").strip()
    else:
        place, token = f"--token-file: {file}", _read_token(Path(file))
    if not token.isascii() or not token.isprintable():
        raise Refused(f"{place} holds no token: a token is one line of printable ASCII")
    return token


def _read_token(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_LONGEST_TOKEN).decode("utf-8", "replace").strip()
    except OSError as error:
        where = existing(file)
        raise Refused(f"--token-file: {where} cannot be read: {error.strerror}") from error


def _own_url(settings: Settings) -> str:
    """Return the URL of the daemon that has these settings, on this machine."""
    for address in settings.server.addr:
        match = _ENDPOINT.fullmatch(address)
        if match is not None:
            host = (match[2] or "").replace("\\:", ":")
            host = "127.0.0.1" if host in _EVERYWHERE else host
            return f"http://[{host}]:{match[1]}" if ":" in host else f"http://{host}:{match[1]}"
    raise WrongWords("--server: name the URL of the daemon, http://HOST:PORT")
