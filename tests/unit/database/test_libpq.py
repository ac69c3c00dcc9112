"""The address of a PostgreSQL server that is not in the URL."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.database.dialects.libpq import completed
from ncps.database.dialects.postgresql import PostgreSQL
from ncps.database.dialects.server import DatabaseServer

SERVER = DatabaseServer(
    port=0, user="", database="cache", connect_timeout_s=5.0, statement_timeout_s=10.0
)


class CompletedTests(SynchronousTestCase):
    def place(
        self, *there: str, server: DatabaseServer = SERVER, **environ: str
    ) -> tuple[str, int, str]:
        """Return socket, port and host of a server if these files exist."""
        found = completed(server, environ, there.__contains__)
        return found.socket, found.port, found.host

    def test_the_socket_of_this_machine(self) -> None:
        """The directory that contains the socket is used."""
        self.assertEqual(
            self.place("/run/postgresql", "/run/postgresql/.s.PGSQL.5432"),
            ("/run/postgresql", 5432, ""),
        )
        self.assertEqual(
            self.place("/run/postgresql", "/var/run/postgresql/.s.PGSQL.5433", PGPORT="5433"),
            ("/var/run/postgresql", 5433, ""),
        )
        self.assertEqual(self.place("/tmp", "/tmp/.s.PGSQL.5432"), ("/tmp", 5432, ""))

    def test_a_server_that_does_not_run_yet(self) -> None:
        """If the socket is missing, its directory is used; without one, localhost."""
        self.assertEqual(self.place("/tmp", "/run/postgresql"), ("/run/postgresql", 5432, ""))
        self.assertEqual(self.place("/tmp"), ("", 5432, "localhost"))

    def test_variables_of_libpq(self) -> None:
        """The variables count if the URL has no value."""
        self.assertEqual(self.place(PGHOST="/pg", PGPORT="7"), ("/pg", 7, ""))
        self.assertEqual(self.place(PGHOST="db.example"), ("", 5432, "db.example"))
        self.assertEqual(self.place(PGPORT="x", PGHOST="h"), ("", 5432, "h"))
        named = evolve(SERVER, host="h", port=1, others=(("i", 0),))
        self.assertEqual(self.place(PGHOST="/pg", PGPORT="7", server=named), ("", 1, "h"))
        self.assertEqual(completed(named, {"PGPORT": "7"}).others, (("i", 7),))
        several = completed(SERVER, {"PGHOST": "h,i"})
        self.assertEqual((several.host, several.others), ("h", (("i", 5432),)))


class ArgumentTests(SynchronousTestCase):
    def arguments(self, **changes: Any) -> dict[str, object]:
        """Return the arguments of the driver."""
        server = evolve(SERVER, **changes)
        found: dict[str, object] = PostgreSQL(server)._arguments()
        return found

    def test_several_hosts_are_asked_for_one_that_can_be_written(self) -> None:
        """With several hosts, the driver searches one that is not read-only."""
        found = self.arguments(host="h", port=1, others=(("i", 2),))
        self.assertEqual((found["host"], found["port"]), ("h,i", "1,2"))
        self.assertEqual(found["target_session_attrs"], "read-write")
        self.assertNotIn("target_session_attrs", self.arguments(host="h", port=1))

    def test_our_session_counts_more_than_the_options_of_the_url(self) -> None:
        """The session's own settings come last in `options`, so they count."""
        found = self.arguments(
            host="h",
            options={"options": "-c statement_timeout=1 -c jit=off", "passfile": "/p"},
        )
        self.assertEqual(found["passfile"], "/p")
        self.assertRegex(
            str(found["options"]),
            r"^-c statement_timeout=1 -c jit=off .*-c statement_timeout=10000",
        )

    def test_every_server_is_named_in_messages(self) -> None:
        """`where` names all hosts."""
        server = evolve(SERVER, host="h", port=1, others=(("::1", 2),))
        self.assertEqual(server.where, "'cache' at h:1, [::1]:2")
