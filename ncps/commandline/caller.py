"""A command that asks a running daemon over HTTP."""

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

TOKEN: Final = "NCPS_TOKEN"  # noqa: S105 - the name of a variable
"""The variable that has the token, so that no process list shows it."""
TIMEOUT_S: Final = 600.0
"""Longest time between two bytes of an answer: a closure of many thousand paths takes minutes."""
_ENDPOINT: Final = re.compile(r"tcp6?:(\d+)(?::interface=((?:\\:|[^:])*))?(?::.*)?", re.ASCII)
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - addresses to be called
_LARGEST: Final = 64 * 1024 * 1024
_LONGEST_TOKEN: Final = 16 * 1024


@frozen(kw_only=True)
class Caller:
    """Asks one daemon.

    :param url: its base URL.
    """

    url: str
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, options: Namespace, settings: Settings) -> Caller:
        """Take it from `--server`, `--token-file`, the environment and the settings."""
        url = options.server or _own_url(settings)
        return cls(url=url.rstrip("/"), token=_token(options.token_file))

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer: an object of JSON, or None if it is empty.

        Raises Refused if the daemon says no, with its text, Unavailable if it does not answer.
        """
        parts, port = urlsplit(self.url), _port(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or port is None:
            raise WrongWords(f"--server: should be http://HOST:PORT, not {quote(self.url)}")
        headers = {"Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        try:
            connection = _connection(parts.scheme, parts.hostname, port)
            try:
                connection.request(method, parts.path + path, data, headers)
                response = connection.getresponse()
                text = response.read(_LARGEST)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"no daemon answers at {quote(self.url)}: {error}; start it, or name another by"
                " --server"
            ) from error
        return _read(response.status, text)


def _port(url: str) -> int | None:
    """Return the port of a URL; None if it is none."""
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None


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
            raise NcpsError("the server's answer is no JSON: is it ncps?") from None
    said = text.decode("utf-8", "replace").strip()[:2000]
    hint = ""
    if status in {401, 403, 405}:
        hint = f" (give the token in the file of --token-file, or in {TOKEN})"
    raise Refused(f"the daemon answers {status}: {said}{hint}")


def _token(file: str | None) -> str:
    if file is None:
        return os.environ.get(TOKEN, "").strip()
    try:
        with Path(file).open("rb") as opened:
            return opened.read(_LONGEST_TOKEN).decode("ascii").strip()
    except OSError as error:
        where = existing(Path(file))
        raise Refused(f"--token-file: {where} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise Refused(f"--token-file: {file} holds no token") from None


def _own_url(settings: Settings) -> str:
    """Return the URL of the daemon that has these settings, on this machine."""
    for address in settings.server.addr:
        match = _ENDPOINT.fullmatch(address)
        if match is not None:
            host = (match[2] or "").replace("\\:", ":")
            host = "127.0.0.1" if host in _EVERYWHERE else host
            return f"http://[{host}]:{match[1]}" if ":" in host else f"http://{host}:{match[1]}"
    raise WrongWords("--server: name the URL of the daemon, http://HOST:PORT")
