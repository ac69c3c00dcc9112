from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

import ncps
from ncps import cli, dbmate
from ncps.database import migrate
from ncps.errors import Unavailable
from ncps.settings.schema.tree import Settings

URL = "sqlite:/var/lib/ncps/db/db.sqlite"


class DbmateCase(SynchronousTestCase):
    """Runs command lines with commands of ncps that only record the database."""

    def setUp(self) -> None:
        self.ran: list[tuple[object, ...]] = []
        self.slept: list[float] = []
        self.now = 0.0
        self.look_s = 0.0
        self.away = 0
        self.pending = 0
        # The real one would take over the log of the test runner.
        self.patch(cli, "start_logging", lambda settings, is_daemon: None)
        self.patch(migrate, "status", self.status)

    def status(self, _dialect: object) -> migrate.SchemaStatus:
        self.ran.append(("look",))
        self.now += self.look_s
        if self.away:
            self.away -= 1
            raise Unavailable("the database does not answer")
        return migrate.SchemaStatus(applied=(), pending=(mock.Mock(),) * self.pending)

    def note(self, name: str) -> Callable[..., int]:
        def call(settings: Settings, *rest: object) -> int:
            self.ran.append((name, str(settings.cache.database_url), *rest))
            return 0

        return call

    def sleep(self, time_s: float) -> None:
        self.slept.append(time_s)
        self.now += time_s

    def run_command(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        commands = cli.Commands(
            serve=self.note("serve"),
            serve_with_workers=self.note("serve with workers"),
            migrate_up=self.note("up"),
            migrate_status=self.note("status"),
            rebuild=self.note("rebuild"),
            keys=self.note("keys"),
        )
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.dict(os.environ, surroundings(environ), clear=True),
        ):
            clock = dbmate.Clock(lambda: self.now, self.sleep)
            code = dbmate.dbmate(arguments, commands=commands, clock=clock)
        return code, out.getvalue(), err.getvalue()


def surroundings(environ: Mapping[str, str]) -> dict[str, str]:
    return {"HOME": "/nonexistent", **environ}


class CommandTests(DbmateCase):
    def test_the_database_is_the_one_that_dbmate_would_take(self) -> None:
        """--url, then --env or DATABASE_URL, then the variables of ncps."""
        other = "sqlite:/other"
        for arguments, environ in (
            (["up"], {"DATABASE_URL": URL}),
            (["migrate"], {"DATABASE_URL": URL, "CACHE_DATABASE_URL": other}),
            (["up"], {"DATABASE_URL": URL, "CACHE_DATABASE_URL_FILE": "/nonexistent"}),
            (["--url", URL, "up"], {"DATABASE_URL": other}),
            ([f"--url={URL}", "--migrations-dir=/share/ncps/db/migrations/sqlite", "up"], {}),
            (["-u", URL, "-d", "/x", "-s", "/y", "--no-dump-schema", "up", "--strict", "-v"], {}),
            (["up", "-u", URL], {}),
            (["--env", "OTHER", "up"], {"OTHER": URL, "DATABASE_URL": other}),
            (["up"], {"CACHE_DATABASE_URL": URL}),
        ):
            self.ran.clear()
            self.assertEqual((0, "", ""), self.run_command(*arguments, **environ), arguments)
            self.assertEqual([("up", URL, False)], self.ran)

    def test_status(self) -> None:
        """It runs `ncps migrate status`; --exit-code tells scripts of pending migrations."""
        self.pending = 1
        self.assertEqual(0, self.run_command("--url", URL, "status")[0])
        self.assertEqual(1, self.run_command("--url", URL, "status", "--exit-code")[0])
        self.pending = 0
        self.assertEqual(0, self.run_command("--url", URL, "status", "--exit-code")[0])
        self.assertIn(("status", URL), self.ran)

    def test_it_waits_for_a_database(self) -> None:
        """--wait and `wait` ask once a second, until the timeout."""
        self.away = 2
        self.assertEqual((0, "", ""), self.run_command("--url", URL, "--wait", "up"))
        self.assertEqual([1.0, 1.0], self.slept)
        self.assertEqual(("up", URL, False), self.ran[-1])
        self.away = 100
        self.ran.clear()
        code, _, err = self.run_command("--url", URL, "--wait-timeout=3s", "wait")
        self.assertEqual((1, "ncps: error: the database does not answer\n"), (code, err))
        self.assertEqual([("look",)] * 4, self.ran)

    def test_a_look_at_a_database_that_hangs_counts(self) -> None:
        """An attempt may take long, and counts for the timeout."""
        self.away, self.look_s = 100, 5.0
        self.assertEqual(1, self.run_command("--url", URL, "--wait-timeout=20s", "wait")[0])
        self.assertEqual(24.0 - 1.0, self.now)

    def test_help_and_version(self) -> None:
        """Both succeed."""
        code, out, _ = self.run_command("--help")
        self.assertEqual(0, code)
        self.assertIn("ncps migrate up", out)
        self.assertEqual(
            (0, f"dbmate-ncps {ncps.__version__}\n", ""), self.run_command("--version")
        )


class MistakeTests(DbmateCase):
    def test_mistakes_are_told(self) -> None:
        """Each mistake is one line that names it, with exit code 2, without a secret."""
        bad = "oracle://ncps:secret@db/ncps"
        for arguments, environ, words in (
            ([], {"DATABASE_URL": URL}, ["up, migrate, status or wait"]),
            (["up"], {}, ["no database", "DATABASE_URL", "--url"]),
            (["up"], {"DATABASE_URL": ""}, ["no database"]),
            (["--env", "OTHER", "up"], {"DATABASE_URL": URL}, ["no database", "OTHER"]),
            (["up"], {"DATABASE_URL": bad}, ["environment DATABASE_URL", "postgresql://"]),
            (["--url", bad, "up"], {}, ["--url", "postgresql://"]),
            (["--url", URL, "upp"], {}, ["'upp'", "did you mean up?"]),
            (["--url", URL, "frobnicate"], {}, ["'frobnicate'", "up, migrate, status or wait?"]),
            (["--url", URL, "up", "now"], {}, ["unexpected argument 'now'"]),
            (["--url", URL, "up", "--hard"], {}, ["--hard"]),
            (["--url", URL, "up", "--hard=secret"], {}, ["unknown flag --hard"]),
            (["--ulr", bad, "up"], {}, ["unknown flag --ulr"]),
            (["up", bad], {}, ["unexpected argument"]),
            ([bad], {}, ["unknown command"]),
            (["--url", URL, "--wait-timeout", "5", "up"], {}, ["--wait-timeout", "'5'", "5s"]),
            (["--env-file", ".env", "up"], {"DATABASE_URL": URL}, ["--env-file", "DATABASE_URL"]),
            (["rollback"], {"DATABASE_URL": URL}, ["rollback", "only go forward"]),
            (["--url", URL, "drop"], {}, ["no command drop", "administrator"]),
        ):
            code, out, err = self.run_command(*arguments, **environ)
            self.assertEqual((2, ""), (code, out), arguments)
            self.assertRegex(err, r"\Adbmate-ncps: error: [^\n]+\n\Z")
            self.assertNotIn("secret", err)
            for word in words:
                self.assertIn(word, err)
        self.assertEqual([], self.ran)
