"""A catalog of a million paths, which SQL statements write inside the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final
from urllib.parse import unquote, urlsplit

MADE_UP: Final = "upload"
"""In place of the name of the trusted key, which nothing checks."""
SIZE: Final = 1000
HOUR_MS: Final = 3_600_000

_COUNTING: Final = {
    "sqlite": (
        "WITH RECURSIVE counting(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counting"
        " WHERE n < {count}) "
    ),
    "postgresql": "",
    "mysql": "",
}
_FROM: Final = {
    "sqlite": "counting",
    "postgresql": "generate_series(1::bigint, {count}) AS counting(n)",
    "mysql": "(SELECT seq AS n FROM seq_1_to_{count}) counting",
}
_HEX: Final = {
    "sqlite": "printf('%08x', (n * 2654435761 + 97) % 4294967296)",
    "postgresql": "lpad(to_hex((n::bigint * 2654435761 + 97) % 4294967296), 8, '0')",
    "mysql": "lower(lpad(hex((n * 2654435761 + 97) % 4294967296), 8, '0'))",
}
"""Eight hexadecimal digits, different for each number below 2^32."""


def digest_of(number: int) -> str:
    """Return the hash part of the path with a number; the first number is 1."""
    text = f"{(number * 2654435761 + 97) % 4294967296:08x}".replace("e", "z")
    return text + "0" * 24


def statements(engine: str, count: int, now_ms: int) -> list[str]:
    """Return the statements that fill an empty catalog: each path has a NAR, and was used once.

    The order of the uses differs from the order of the rows. The times are spread over the 1,000
    hours that ended one hour before `now_ms`.

    :param engine: `sqlite`, `postgresql` or `mysql` (MariaDB only, for its sequences).
    """
    begin = _COUNTING[engine].format(count=count)
    source = _FROM[engine].format(count=count)
    letters = f"replace({_HEX[engine]}, 'e', 'z')"
    digest, name = f"{letters} || '{'0' * 24}'", f"'0' || {letters} || '{'0' * 43}'"
    stored = now_ms - 1001 * HOUR_MS
    used = f"{stored} + (n * 7919) % {1000 * HOUR_MS}"
    text = (
        f"'StorePath: /nix/store/' || {digest} || '-scale-' || n || '\nURL: nar/' || {name}"
        f" || '.nar\nCompression: none\nFileHash: sha256:' || {name} || '\nFileSize: {SIZE}'"
        f" || '\nNarHash: sha256:' || {name} || '\nNarSize: {SIZE}\nReferences: \n'"
    )
    nars = (
        f"{begin}SELECT n, {name}, '', 'none', 'none', {SIZE}, 'sha256:' || {name}, {SIZE},"
        f" 'sha256:' || {name}, 'made', '', {SIZE}, {stored}, {stored}, {used} FROM {source}"
    )
    narinfos = (
        f"{begin}SELECT n, {digest}, n, 'scale-' || n, {text}, '', '', 1, 1, {used}, '{MADE_UP}'"
        f" FROM {source}"
    )
    return [
        (
            "INSERT INTO nar_files (id, name, extension, compression, encoding, file_size,"
            " file_hash, nar_size, nar_hash, upstream, origin_url, stored_size, stored_at,"
            f" verified_at, last_used_at) {nars}"
        ),
        (
            "INSERT INTO narinfos (id, hash, nar_file_id, store_path_name, narinfo, upstream,"
            f" upstream_url, verified, fetched_at, last_used_at, verified_by) {narinfos}"
        ),
        f"UPDATE accounts SET nars = {count}, bytes = {count * SIZE} WHERE name = 'stored'",
    ]


@contextmanager
def opened(engine: str, url: str) -> Iterator[Callable[[str], list[Any]]]:
    """Yield a function that executes a statement in a database and returns its rows."""
    connection: Any
    if engine == "sqlite":
        connection = sqlite3.connect(url.removeprefix("sqlite:"), isolation_level=None)
    elif engine == "postgresql":
        import psycopg

        connection = psycopg.connect(url, autocommit=True)
    else:
        import pymysql

        parts = urlsplit(url)
        connection = pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=parts.path.lstrip("/"),
            sql_mode="PIPES_AS_CONCAT",
            autocommit=True,
        )

    def execute(text: str) -> list[Any]:
        cursor = connection.cursor()
        cursor.execute(text)
        return list(cursor.fetchall()) if cursor.description else []

    with closing(connection):
        yield execute
