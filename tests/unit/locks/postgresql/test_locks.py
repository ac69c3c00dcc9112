"""Tests of the checks of a database that shall keep leases."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import NcpsError, Refused
from ncps.locks.postgresql.locks import PostgresBackend, key_of
from ncps.locks.postgresql.session import Engine


class Database(Engine):
    """A database with a scripted first answer; it is also its own connection."""

    where = "the database"
    errors = ()

    def __init__(self, pid: int, is_standby: bool) -> None:
        self.answer = (pid, is_standby)
        self.info = SimpleNamespace(backend_pid=17, server_version=150_000)
        self.asked: list[str] = []
        self.settings: dict[str, str] = {}

    def connect(self) -> Any:
        return self

    def translated(self, error: Exception) -> NcpsError:
        raise AssertionError

    def execute(self, statement: str, words: Sequence[str] = ()) -> Database:
        self.asked.append(statement)
        if "set_config" in statement:
            self.settings[words[0]] = words[1]
        return self

    def fetchone(self) -> tuple[int, bool]:
        return self.answer


class GreetingTests(SynchronousTestCase):
    def greet(self, database: Database) -> None:
        PostgresBackend(Clock(), database, ttl_s=15.0).greet_blocking(database)

    def test_a_pooler_between_us_and_the_server(self) -> None:
        """Behind a pooler, locks would belong to sessions of other clients."""
        error = self.assertRaises(Refused, self.greet, Database(18, False))
        self.assertIn("pooler", str(error))

    def test_a_standby(self) -> None:
        """A standby is refused, because it accepts no writes."""
        error = self.assertRaises(Refused, self.greet, Database(17, True))
        self.assertIn("standby", str(error))

    def test_a_server(self) -> None:
        """On a server, the session listens to both channels."""
        database = Database(17, False)
        self.greet(database)
        self.assertIn("LISTEN ncps_leases", database.asked)

    def test_sessions_that_ask_nothing(self) -> None:
        """The server ends idle sessions later than this process gives up their leases."""
        for version, expected in ((150_000, "30000"), (140_000, "30000"), (130_011, None)):
            database = Database(17, False)
            database.info.server_version = version
            self.greet(database)
            self.assertEqual(database.settings.get("idle_session_timeout"), expected)


class KeyTests(SynchronousTestCase):
    def test_keys_are_signed_and_differ(self) -> None:
        """Keys are signed 64-bit numbers, the same in every process."""
        keys = {key_of(str(number)) for number in range(1000)}
        self.assertEqual(len(keys), 1000)
        self.assertTrue(all(-(2**63) <= key < 2**63 for key in keys))
        self.assertTrue(any(key < 0 for key in keys))
        self.assertEqual(key_of("a"), key_of("a"))
