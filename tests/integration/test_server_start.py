"""Databases on servers at the start: each mistake is one line, and TLS is checked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pymysql
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import ROOT
from tests.integration.servers import shared
from tests.integration.servers.certificates import Authority
from tests.integration.servers.database import PASSWORD, PASSWORD_IN_URL, USER, DatabaseServer
from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.mysql import MySQL
from tests.integration.servers.postgresql import PostgreSQL
from tests.system.program import run_forked
from tests.waiting import free_port


class Commands(SynchronousTestCase):
    """Runs `ncps` as an operator does."""

    def ncps(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        flag = "--cache-database-url="  # it would warn of the password in it
        urls = [text.removeprefix(flag) for text in arguments if text.startswith(flag)]
        arguments = tuple(text for text in arguments if not text.startswith(flag))
        given = {**os.environ, **environ, **({"CACHE_DATABASE_URL": urls[-1]} if urls else {})}
        done = run_forked("ncps.__main__", arguments, ROOT, given)
        for secret in (PASSWORD, PASSWORD_IN_URL, "wrong-secret"):
            self.assertNotIn(secret, done.stdout + done.stderr)
        return done.returncode, done.stdout, done.stderr

    def refused(self, url: str, *words: str) -> None:
        """Run a start that must fail; return its one line."""
        code, _, said = self.ncps("migrate", "up", f"--cache-database-url={url}")
        self.assertEqual(code, 1, said)
        self.assertRegex(said, r"\Ancps: error: [^\n]*\n\Z")
        for word in words:
            self.assertIn(word, said)

    def accepted(self, url: str, *more: str) -> None:
        self.accepted_in({}, url, *more)

    def accepted_in(self, environ: Mapping[str, str], url: str, *more: str) -> None:
        """Check that it starts with these variables."""
        flag = f"--cache-database-url={url}"
        code, told, said = self.ncps("migrate", "status", flag, *more, **environ)
        self.assertEqual((code, said), (0, ""))
        self.assertIn("0001 initial", told)


class MistakeTests(Commands):
    """Usual mistakes."""

    def check(self, server: DatabaseServer) -> None:
        url = server.new_database()
        name = url.rpartition("/")[2]
        self.refused(server.url("nosuch"), "no database 'nosuch'", "cache-database-url")
        self.refused(server.url(name, password="wrong-secret"), "password", name)
        self.refused(server.url(name, user="stranger"), "stranger", "does not accept")
        self.refused(url.replace("127.0.0.1", "nosuch.invalid"), "nosuch.invalid")
        self.refused(
            url.replace(f":{server.port}/", f":{free_port()}/"), "refused", "is it running"
        )

    def test_mistakes_with_postgresql(self) -> None:
        """Database, password, user, host and port."""
        self.check(shared.postgresql())

    def test_mistakes_with_mariadb(self) -> None:
        """Database, password, user, host and port."""
        self.check(shared.mariadb())
        self.check_accounts(shared.mariadb())

    def test_mistakes_with_mysql(self) -> None:
        """Database, password, user, host and port."""
        self.check(shared.mysql())
        self.check_accounts(shared.mysql())

    def check_accounts(self, server: MariaDB | MySQL) -> None:
        """Check a locked user, and one with all allowed connections in use."""
        name = server.new_database().rpartition("/")[2]
        for user, limit in (("locked", "ACCOUNT LOCK"), ("few", "WITH MAX_USER_CONNECTIONS 1")):
            server.execute(f"CREATE USER {user}@'%' IDENTIFIED BY 'x' {limit}")
            server.execute(f"GRANT ALL ON {name}.* TO {user}@'%'")
        self.refused(server.url(name, user="locked", password="x"), "locked", "unlock the account")
        url = server.url(name, user="few", password="x")
        with closing(pymysql.connect(host="127.0.0.1", port=server.port, user="few", password="x")):
            self.refused(url, name, "max_user_connections")

    def test_a_server_that_never_answers(self) -> None:
        """The start does not wait for long."""
        for server in (shared.postgresql(), shared.mariadb(), shared.mysql()):
            with _mute() as port:
                url = server.url("d").replace(f":{server.port}/", f":{port}/")
                code, _, said = self.ncps(
                    "migrate",
                    "status",
                    f"--cache-database-url={url}",
                    "--cache-database-connect-timeout=1s",
                    "--cache-database-statement-timeout=1s",
                )
            self.assertEqual(code, 1)
            self.assertRegex(said, r"\Ancps: error: the database [^\n]* does not answer[^\n]*\n\Z")


@contextmanager
def _mute() -> Iterator[int]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class CommandTests(Commands):
    """The commands on servers."""

    def check(self, server: DatabaseServer, by_socket: str) -> None:
        url = server.new_database()
        flag = f"--cache-database-url={url}"
        steps = (
            (("migrate", "status"), "pending"),
            (("migrate", "up", "--dry-run"), "pending"),
            (("migrate", "status"), "pending"),
            (("migrate", "up"), "applied"),
            (("migrate", "status"), "applied"),
        )
        for command, word in steps:
            code, told, said = self.ncps(*command, flag)
            self.assertEqual((code, said), (0, ""))
            self.assertEqual({line.split()[0] for line in told.splitlines()}, {word})
            self.assertIn("0001 initial", told)
        self.assertEqual(self.ncps("migrate", "up", flag)[1], "the schema is up to date\n")
        name = url.rpartition("/")[2]
        self.accepted(by_socket.format(user=f"{USER}:{PASSWORD_IN_URL}", name=name))
        secret = Path(self.mktemp()).absolute()
        secret.write_text(PASSWORD + "\n")
        bare = url.replace(f":{PASSWORD_IN_URL}@", "@")
        self.accepted(bare, f"--cache-database-password-file={secret}")
        store = Path(self.mktemp()).absolute()
        code, told, said = self.ncps("rebuild", flag, f"--cache-storage-local={store}")
        self.assertEqual((code, said), (0, ""))
        self.assertIn("0 narinfos", told)

    def test_commands_on_postgresql(self) -> None:
        """Migrations and rebuild, over TCP and the socket, the password in the URL or in a file."""
        server = shared.postgresql()
        self.check(server, f"postgres+unix://{{user}}@:{server.port}{server.directory}/{{name}}")

    def test_address_and_user_of_postgresql(self) -> None:
        """libpq's own parameters and variables work, and hosts of which one is away."""
        server = shared.postgresql()
        url = server.new_database()
        name = url.rpartition("/")[2]
        self.assertEqual(self.ncps("migrate", "up", f"--cache-database-url={url}")[0], 0)
        place = f"host={server.directory}&port={server.port}"
        self.accepted(f"postgresql:///{name}?{place}&user={USER}&password={PASSWORD_IN_URL}")
        self.accepted(url.replace("@127.0.0.1", f"@127.0.0.1:{free_port()},127.0.0.1"))
        variables = {"PGPORT": str(server.port), "PGUSER": USER, "PGPASSWORD": PASSWORD}
        for host in (str(server.directory), "127.0.0.1"):
            self.accepted_in({**variables, "PGHOST": host}, f"postgresql:///{name}")

    def test_commands_on_mariadb(self) -> None:
        """Migrations and rebuild, over TCP and the socket, the password in the URL or in a file."""
        server = shared.mariadb()
        self.check(server, f"mysql://{{user}}@/{{name}}?socket={server.socket}")

    def test_commands_on_mysql(self) -> None:
        """Migrations and rebuild, over TCP and the socket, the password in the URL or in a file."""
        server = shared.mysql()
        self.check(server, f"mysql://{{user}}@/{{name}}?socket={server.socket}")


class TLSTests(Commands):
    """Servers with certificates."""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).absolute()
        self.right = Authority(directory, "right")
        self.wrong = Authority(directory, "wrong")

    def install(
        self, server: DatabaseServer, names: Collection[str] = ("127.0.0.1",)
    ) -> tuple[Path, Path]:
        """Put a certificate for these names, and its key, where the server may read them."""
        paths = []
        for source in self.right.issue("elsewhere.example", names=names):
            path = server.directory / source.name
            shutil.copy(source, path)
            path.chmod(0o600)
            server.own(path)
            paths.append(path)
        return paths[0], paths[1]

    def test_postgresql(self) -> None:
        """Connections are encrypted and verified if the URL says so, and errors say why."""
        server = PostgreSQL()
        self.addCleanup(server.close)
        certificate, key = self.install(server)
        server.options += ["-c", "ssl=on", "-c", f"ssl_cert_file={certificate}"]
        server.options += ["-c", f"ssl_key_file={key}"]
        server.start()
        url = server.new_database()
        self.accepted(f"{url}?sslmode=require")
        self.accepted(f"{url}?sslmode=verify-full&sslrootcert={self.right.path}")
        self.refused(f"{url}?sslmode=verify-full&sslrootcert={self.wrong.path}", "TLS", "verify")
        self.refused(f"{url}?sslmode=verify-full&sslrootcert=/nonexistent", "TLS", "/nonexistent")
        elsewhere = url.replace("127.0.0.1", "localhost")
        self.accepted(f"{elsewhere}?sslmode=verify-ca&sslrootcert={self.right.path}")
        self.refused(f"{elsewhere}?sslmode=verify-full&sslrootcert={self.right.path}", "TLS")
        server.stop()
        self.install(server, names=())
        server.start()
        self.accepted(f"{url}?sslmode=verify-ca&sslrootcert={self.right.path}")
        self.refused(f"{url}?sslmode=verify-full&sslrootcert={self.right.path}", "TLS")

    def test_mariadb(self) -> None:
        """Connections are encrypted and verified if the URL says so, and errors say why."""
        self.check(MariaDB())

    def test_mysql(self) -> None:
        """MySQL behaves in the same way."""
        self.check(MySQL())

    def check(self, server: MariaDB | MySQL) -> None:
        self.addCleanup(server.close)
        certificate, key = self.install(server)
        server.options += [f"--ssl-cert={certificate}", f"--ssl-key={key}"]
        server.options += ["--require-secure-transport=ON"]
        server.start()
        url = server.new_database()
        self.accepted(url)
        self.accepted(f"{url}?ssl-mode=REQUIRED")
        self.refused(f"{url}?ssl-mode=DISABLED", "TLS")
        self.accepted(f"{url}?ssl-ca={self.right.path}")
        self.refused(f"{url}?ssl-ca={self.wrong.path}", "certificate verify failed")
        self.refused(f"{url}?tls=true", "certificate verify failed")
        elsewhere = url.replace("127.0.0.1", "localhost")
        self.accepted(f"{elsewhere}?ssl-mode=VERIFY_CA&ssl-ca={self.right.path}")
        self.refused(f"{elsewhere}?ssl-ca={self.right.path}", "certificate verify failed")
        server.stop()
        self.install(server, names=())
        server.start()
        self.accepted(f"{url}?ssl-mode=VERIFY_CA&ssl-ca={self.right.path}")
        self.refused(f"{url}?ssl-ca={self.right.path}", "certificate verify failed")
