"""How the daemon starts: where it listens, its settings, and the schema of its database."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3

from tests.e2e.daemon import Daemon
from tests.system.life import GET_INDEX, TAKEN, LifeStage
from tests.system.program import run, run_ncps, settings_of
from tests.system.wire import raw_status, send_raw
from tests.waiting import free_port


class ListenTests(LifeStage):
    """The addresses of the daemon."""

    def serve_on(self, *addresses: str) -> Daemon:
        """Return a daemon that also listens on these addresses."""
        options = [word for address in addresses for word in ("--server-addr", address)]
        return self.daemon(self.origin(), options=options)

    def test_unix_socket(self) -> None:
        """A `unix:` endpoint works beside others, and is removed at the end."""
        path = self.directory / "ncps.sock"
        daemon = self.serve_on(f"unix:{path}:mode=660")
        self.assertEqual(0o660, path.stat().st_mode & 0o777)
        self.assertEqual(200, raw_status(send_raw(str(path), GET_INDEX)))
        self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
        daemon.kill()
        daemon.start()
        self.assertEqual(200, raw_status(send_raw(str(path), GET_INDEX)))
        daemon.stop()
        self.assertFalse(path.exists())

    def test_a_socket_whose_file_was_removed(self) -> None:
        """The daemon ends in order if the socket's file, or also its directory, is gone."""
        path = self.directory / "run" / "ncps.sock"
        path.parent.mkdir()
        daemon = self.serve_on(f"unix:{path}")
        shutil.rmtree(path.parent)
        daemon.stop()
        self.assertFalse(path.exists())
        self.assertIn("ncps has stopped", daemon.log)

    def test_several_addresses(self) -> None:
        """Host and port, IPv6 and endpoint strings can be mixed."""
        ports = [free_port() for _ in range(2)]
        self.serve_on(f"tcp:{ports[0]}:interface=127.0.0.1", f"localhost:{ports[1]}")
        for port in ports:
            self.assertEqual(200, raw_status(send_raw(("127.0.0.1", port), GET_INDEX)))

    def test_port_in_use_is_told(self) -> None:
        """A port in use is one line with the address of the setting, and exit code 1."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            daemon = self.make_daemon(self.origin())
            done = run_ncps(daemon, "serve", flags=["--server-addr", f"127.0.0.1:{port}"])
        self.assertEqual(1, done.returncode, done.stdout)
        self.assertRegex(done.stderr, TAKEN.format(port=port))
        self.assertNotIn('"fatal"', done.stdout)
        self.assertNotIn("has stopped", done.stdout)


class StartTests(LifeStage):
    """Errors that end a start."""

    def refused(self, *flags: str, code: int = 2, **variables: str) -> str:
        """Start with these flags; return the printed error."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        done = run(["-m", "ncps", "serve", *flags], home, variables)
        said = done.stdout + done.stderr
        self.assertEqual(code, done.returncode, said)
        self.assertNotIn("Traceback", said)
        self.assertIn("error: ", said)
        return said

    def test_wrong_flags_are_told(self) -> None:
        """The error names misspelt flags and wrong values, and what would be right."""
        for flags, words in (
            (["--cache-hostnme=x"], ["--cache-hostnme", "did you mean --cache-hostname"]),
            (["--server-drain-timeout=5"], ["server-drain-timeout"]),
            (["--server-addr=nonsense:x"], ["server-addr", "nonsense"]),
            (["--cache-upstream-url=ftp://x"], ["cache-upstream-url", "ftp"]),
            (["--cache-upstream-public-key=x"], ["cache-upstream-public-key"]),
            (["--log-level=loud"], ["log-level", "loud", "info"]),
            (["--cache-database-url=oracle://x/y"], ["cache-database-url", "postgresql:"]),
            (["--cache-lru-schedule=@daily"], ["cache-lru-schedule", "cache-max-size"]),
            (["--config=/nonexistent.yaml"], ["/nonexistent.yaml"]),
            (["nonsense"], ["nonsense"]),
        ):
            said = self.refused(*flags)
            for word in words:
                self.assertIn(word, said)

    def test_wrong_keys_of_files_are_told(self) -> None:
        """The error names unknown keys and wrong values of a file, in all three formats."""
        for name, text in (
            ("a.yaml", "cache:\n  hostnme: x\n"),
            ("a.toml", '[cache]\nhostnme = "x"\n'),
            ("a.json", '{"cache": {"hostnme": "x"}}'),
        ):
            file = self.directory / name
            file.write_text(text)
            said = self.refused(f"--config={file}")
            self.assertIn("cache.hostnme", said)
            self.assertIn("did you mean cache.hostname", said)
        broken = self.directory / "broken.yaml"
        broken.write_text("cache: [\n")
        self.assertIn("broken.yaml", self.refused(f"--config={broken}"))

    def test_wrong_variables_are_told(self) -> None:
        """The error names the variable with a wrong value."""
        self.assertIn("SERVER_DRAIN_TIMEOUT", self.refused(SERVER_DRAIN_TIMEOUT="soon"))

    def test_unusable_places_are_told(self) -> None:
        """A storage path or database that cannot be used is an error with exit code 1."""
        file = self.directory / "file"
        file.write_text("not a database, not a directory, just some text")
        base = [f"--cache-storage-local={self.directory}/storage"]
        said = self.refused(f"--cache-storage-local={file}", code=1)
        self.assertIn(str(file), said)
        said = self.refused(*base, f"--cache-database-url=sqlite:{file}/x/db", code=1)
        self.assertIn(str(file), said)
        said = self.refused(*base, f"--cache-database-url=sqlite:{file}", code=1)
        self.assertIn("not a database", said)

    def test_settings_from_everywhere(self) -> None:
        """A file, the environment and flags are used, in that order."""
        file = self.directory / "ncps.yaml"
        file.write_text(
            "cache:\n  hostname: file.test\n  nix-cache-info:\n    priority: 31\n"
            "server:\n  drain-timeout: 7s\n"
        )
        daemon = self.make_daemon(self.origin())
        flags = settings_of(daemon)
        at = flags.index("--cache-hostname")
        del flags[at : at + 2]
        more = {"CACHE_HOSTNAME": "env.test", "CACHE_NIX_CACHE_INFO_PRIORITY": "32"}
        command = ["-m", "ncps", "serve", *flags, f"--config={file}"]
        process = self.spawn(daemon, [*command, "--cache-hostname", "flag.test"], more=more)
        self.wait_until_listening(daemon)
        self.assertEqual("flag.test", self.ask(daemon, "/").json["hostname"])
        self.assertIn(b"Priority: 32\n", self.ask(daemon, "/nix-cache-info").body)
        self.end(process)

    def test_help_and_version(self) -> None:
        """--help names every setting, --version the version; both leave with exit code 0."""
        done = run(["-m", "ncps", "serve", "--help"], self.directory)
        self.assertEqual(0, done.returncode)
        for flag in ("--cache-hostname", "--cache-upstream-url", "--server-drain-timeout"):
            self.assertIn(flag, done.stdout)
        done = run(["-m", "ncps", "--version"], self.directory)
        self.assertEqual(0, done.returncode)
        self.assertRegex(done.stdout, r"^ncps \d+\.\d+")


class MigrateTests(LifeStage):
    """`ncps migrate`."""

    def test_migrations_by_hand(self) -> None:
        """`migrate up` makes the same schema as `serve`, and `status` lists the steps."""
        daemon = self.make_daemon(self.origin())
        before = run_ncps(daemon, "migrate", "status")
        self.assertEqual(0, before.returncode, before.stderr)
        self.assertIn("pending 0001", before.stdout)
        dry = run_ncps(daemon, "migrate", "up", "--dry-run")
        self.assertIn("pending 0001", dry.stdout)
        up = run_ncps(daemon, "migrate", "up")
        self.assertEqual(0, up.returncode, up.stderr)
        self.assertIn("applied 0001", up.stdout)
        again = run_ncps(daemon, "migrate", "up")
        self.assertIn("up to date", again.stdout)
        after = run_ncps(daemon, "migrate", "status")
        self.assertNotIn("pending", after.stdout)
        daemon.start()
        self.assertNotIn("applied migration", daemon.log)

    def test_newer_schema_is_refused(self) -> None:
        """A database of a newer ncps is not changed."""
        daemon = self.daemon(self.origin())
        daemon.stop()
        with contextlib.closing(sqlite3.connect(daemon.directory / "catalog.sqlite")) as db:
            (table,) = (
                row[0]
                for row in db.execute(
                    "SELECT name FROM sqlite_master WHERE name LIKE '%migration%'"
                )
            )
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            row = dict(zip(columns, db.execute(f"SELECT * FROM {table}").fetchone(), strict=True))
            row["version"] = 9999
            marks = ", ".join("?" * len(columns))
            db.execute(f"INSERT INTO {table} VALUES ({marks})", list(row.values()))
            db.commit()
        done = run_ncps(daemon, "serve")
        self.assertEqual(1, done.returncode)
        self.assertIn("newer", done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
