"""TLS for clients: real clients, client certificates, and certificates that change."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from cryptography.x509 import UniformResourceIdentifier

from tests.e2e.daemon import Daemon
from tests.integration.servers.certificates import Authority
from tests.system.crew import WorkersStage
from tests.system.test_reload import ReloadStage
from tests.waiting import free_port, listens, wait_until

LOOK_S = 0.1


class TlsStage(WorkersStage):
    """A stage whose daemons speak TLS, too."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(self.directory, "authority")
        self.port = free_port()
        self.cert, self.key = self.directory / "live.crt", self.directory / "live.key"
        self.install(*self.authority.issue("first", days=90))

    def install(self, cert: Path, key: Path) -> None:
        """Replace the certificate as programs that renew certificates do."""
        for source, target in ((cert, self.cert), (key, self.key)):
            fresh = target.with_suffix(".new")
            shutil.copyfile(source, fresh)
            fresh.rename(target)

    def flags(self, *more: str) -> list[str]:
        return [
            *("--server-addr", f"https://127.0.0.1:{self.port}"),
            *("--server-tls-cert-file", str(self.cert)),
            *("--server-tls-key-file", str(self.key)),
            *more,
        ]

    def secured(self, *more: str) -> Daemon:
        """Return a running daemon that checks its certificate often."""
        daemon = self.make_daemon(self.mounted(), options=self.flags(*more))
        daemon.constants["ncps.assembly.runtime.CERTIFICATES_S"] = LOOK_S
        daemon.start()
        return daemon

    def context(self, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.path)
        if own is not None:
            context.load_cert_chain(*own)
        return context

    def get(
        self, path: str, own: tuple[Path, Path] | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Send a request over TLS, on a connection of its own."""
        connection = HTTPSConnection("127.0.0.1", self.port, context=self.context(own), timeout=20)
        with closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()

    def shown(self) -> str:
        """Return the common name of the certificate on a new connection."""
        with (
            socket.create_connection(("127.0.0.1", self.port), 20) as plain,
            self.context().wrap_socket(plain, server_hostname="127.0.0.1") as line,
        ):
            certificate: Any = line.getpeercert()
            return str(certificate["subject"][0][0][1])

    def wait_for_metric(self, daemon: Daemon, name: str, value: float) -> None:
        wait_until(
            lambda: self.metric(daemon, name) == value, f"{name} to be {value}", daemon=daemon
        )


class TlsTests(TlsStage):
    def test_https_beside_http(self) -> None:
        """narinfos and NARs are the same at both addresses, as misses, hits and ranges."""
        path = self.cache.add(size=3_000_000)
        daemon = self.secured()
        narinfo = self.get(f"/{path.digest}.narinfo")
        target = self.nar_target(daemon, path)
        self.assertEqual((200, self.narinfo(daemon, path).body), narinfo)
        missed = self.get(target)
        self.assertEqual((200, path.file), missed)
        for _ in range(2):
            self.assertEqual(missed, self.get(target))
            self.assertEqual(narinfo, self.get(f"/{path.digest}.narinfo"))
        status, part = self.get(target, Range="bytes=1000000-")
        self.assertEqual((206, path.file[1_000_000:]), (status, part))
        self.assertEqual(self.ask(daemon, target).body, missed[1])
        self.wait_for_log(daemon, f"https://127.0.0.1:{self.port}")
        self.assertEqual(0, self.metric(daemon, 'ncps_tls_handshakes_total{result="other"}'))

    def test_workers_share_the_address(self) -> None:
        """Each worker speaks TLS, and uses a new certificate."""
        daemon = self.secured("--workers", "2")
        self.assertEqual("first", self.shown())
        self.install(*self.authority.issue("second", days=90))
        wait_until(
            lambda: {self.shown() for _ in range(12)} == {"second"},
            "both workers to take it",
            daemon=daemon,
        )

    def test_socket_of_systemd(self) -> None:
        """A socket that systemd has opened speaks TLS."""
        daemon = self.make_daemon(self.mounted(), options=self.flags()[2:])
        program = shutil.which("systemd-socket-activate")
        assert program is not None
        command = [
            *(program, "-l", f"127.0.0.1:{self.port}", "--fdname=https", *daemon.command()),
            *("--server-addr", "https+systemd:domain=INET:name=https"),
        ]
        environment = {"HOME": str(self.directory), "PATH": os.environ["PATH"]}
        with daemon.log_file.open("ab") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        wait_until(lambda: listens(self.port), "systemd-socket-activate", daemon=daemon)
        # The check of the port was a connection, so the program starts.
        wait_until(lambda: " serves " in daemon.log, "a start", deadline=60.0, daemon=daemon)
        self.assertEqual("first", self.shown())
        self.assertEqual(200, self.get("/pubkey")[0])


class ClientCertificateTests(TlsStage):
    def test_clients_need_a_certificate(self) -> None:
        """A client without a certificate of the authority is refused and logged."""
        clients = Authority(self.directory, "clients")
        own = clients.issue("laptop", days=90)
        other = Authority(self.directory, "others").issue("stranger", days=90)
        late = clients.issue("late", days=-1)
        daemon = self.secured("--server-tls-client-ca-file", str(clients.path))
        self.assertEqual(200, self.get("/pubkey", own)[0])
        for shown in (None, other, late):
            with self.assertRaises(OSError):
                self.get("/pubkey", shown)
        self.wait_for_log(daemon, "it shows no certificate, and server-tls-client-ca-file asks")
        self.wait_for_log(daemon, "no authority of server-tls-client-ca-file has signed")
        name = 'ncps_tls_handshakes_total{result="%s"}'
        self.wait_for_metric(daemon, name % "no_certificate", 1)
        self.wait_for_metric(daemon, name % "bad_certificate", 2)
        self.assertEqual(200, self.ask(daemon, "/pubkey").status)

    def test_certificates_decide_which_clients_may_read(self) -> None:
        """Names in certificates give scopes for all requests of a connection, also for short cuts.

        A token counts before the certificate, and the plain address has no certificates.
        """
        clients = Authority(self.directory, "clients")
        laptop = clients.issue("laptop", names=["laptop.example"], days=90)
        runner = clients.issue("x", names=[UniformResourceIdentifier("spiffe://ci/7")], days=90)
        phone = clients.issue("phone", days=90)
        path = self.cache.add(size=1000)
        daemon = self.secured(
            *("--server-tls-client-ca-file", str(clients.path), "--auth-reads", "token"),
            *("--auth-tls-rule", "scope=read; cn=lap*; dns=*.example"),
            *("--auth-tls-rule", "scope=read; uri=spiffe://ci/*"),
        )
        target = f"/{path.digest}.narinfo"
        for _ in range(2):
            self.assertEqual(200, self.get(target, laptop)[0])
            self.assertEqual(200, self.get(target, runner)[0])
            self.assertEqual(403, self.get(target, phone)[0])
        self.assertEqual(401, self.get(target, laptop, Authorization="Bearer wrong")[0])
        self.assertEqual(401, self.ask(daemon, target).status)
        for own, status in ((laptop, 200), (phone, 403)):
            line = HTTPSConnection("127.0.0.1", self.port, context=self.context(own), timeout=20)
            with closing(line):
                for _ in range(3):
                    line.request("GET", target)
                    response = line.getresponse()
                    response.read()
                    self.assertEqual(status, response.status)


class AuthorityReloadTests(TlsStage, ReloadStage):
    """SIGHUP changes the authorities of client certificates."""

    def set(self, authorities: Path | None) -> None:
        """Write the file."""
        tls = {"cert-file": str(self.cert), "key-file": str(self.key)}
        if authorities is not None:
            tls["client-ca-file"] = str(authorities)
        self.write(self.upstream, self.cache.key, server={"tls": tls})

    def refuse(self, own: tuple[Path, Path] | None) -> None:
        with self.assertRaises(OSError):
            self.get("/pubkey", own)

    def kept(self, own: tuple[Path, Path] | None) -> HTTPSConnection:
        """Return a connection after a request."""
        line = HTTPSConnection("127.0.0.1", self.port, context=self.context(own), timeout=20)
        self.addCleanup(line.close)
        self.ask_on(line)
        return line

    def ask_on(self, line: HTTPSConnection) -> None:
        line.request("GET", "/pubkey")
        response = line.getresponse()
        self.assertEqual((200, True), (response.status, bool(response.read())))

    def test_other_authorities(self) -> None:
        """They count for new connections, and connections of refused clients end.

        An unusable file changes nothing.
        """
        self.upstream = self.mounted()
        first, second = (Authority(self.directory, name) for name in ("clients", "others"))
        one, two = first.issue("one", days=90), second.issue("two", days=90)
        self.set(None)
        daemon = self.configured(options=["--server-addr", f"https://127.0.0.1:{self.port}"])
        free = self.kept(None)
        self.set(first.path)
        self.reload(daemon, "reloaded: server.tls.client-ca-file")
        with self.assertRaises(OSError):
            self.ask_on(free)
        self.refuse(None)
        self.refuse(two)
        line = self.kept(one)
        garbage = self.directory / "garbage"
        garbage.write_text("garbage")
        for wrong, words in (
            (garbage, "should hold certificates"),
            (Path("/no"), "cannot be read"),
        ):
            self.set(wrong)
            said = self.reload(daemon, "nothing is reloaded")[-1]
            self.assertIn("server-tls-client-ca-file", said)
            self.assertIn(words, said)
            self.ask_on(line)
            self.refuse(two)
        both = self.directory / "both"
        both.write_bytes(first.path.read_bytes() + second.path.read_bytes())
        self.set(both)
        self.reload(daemon, "reloaded: server.tls.client-ca-file")
        self.ask_on(line)
        other = self.kept(two)
        self.set(second.path)
        self.reload(daemon, "reloaded: server.tls.client-ca-file")
        for cut in (line, other):
            with self.assertRaises(OSError):
                self.ask_on(cut)
        self.refuse(one)
        self.assertEqual(200, self.get("/pubkey", two)[0])


class RenewalTests(TlsStage):
    def test_certificates_change_while_it_runs(self) -> None:
        """New connections get the new one; unusable files change nothing, and the log says so."""
        daemon = self.secured()
        loads = 'ncps_tls_certificate_loads_total{result="%s"}'
        kept = HTTPSConnection("127.0.0.1", self.port, context=self.context(), timeout=20)
        self.addCleanup(kept.close)
        self.ask_on(kept)
        second = self.authority.issue("second", days=90)
        self.install(*second)
        wait_until(lambda: self.shown() == "second", "the new certificate", daemon=daemon)
        self.ask_on(kept)
        self.assertEqual([], self.warnings(daemon))
        garbage = self.directory / "garbage"
        garbage.write_bytes(b"\0garbage\n" * 100)
        for count, (files, says) in enumerate(
            (
                ((garbage, second[1]), "should hold a certificate in PEM"),
                ((second[0], garbage), "should hold a certificate and its private key in PEM"),
                (self.mismatched(), "is not the key of the certificate"),
                (self.authority.issue("late", days=-1), "CN=late has expired"),
            ),
            1,
        ):
            self.install(*files)
            self.wait_for_log(daemon, "the new certificate cannot be used", says)
            self.wait_for_warning(daemon, says)
            self.assertEqual("second", self.shown())
            self.assertLessEqual(count, self.metric(daemon, loads % "refused"))
            said = [line for line in daemon.log.splitlines() if says in line]
            self.assertEqual(1, len(said), said)
        self.cert.unlink()
        self.wait_for_log(daemon, "live.crt cannot be read: No such file or directory")
        self.ask_on(kept)
        self.assertEqual("second", self.shown())
        self.install(*self.authority.issue("third", days=3))
        wait_until(lambda: self.shown() == "third", "the repaired files", daemon=daemon)
        self.wait_for_log(daemon, "the certificate of CN=third expires at", "another one")
        wait_until(lambda: len(self.warnings(daemon)) == 1, "one warning", daemon=daemon)
        self.assertIn("CN=third expires at", self.warnings(daemon)[0])
        self.assertEqual(200, self.ask(daemon, "/readyz").status)
        self.ask_on(kept)

    def wait_for_warning(self, daemon: Daemon, says: str) -> None:
        wait_until(lambda: says in str(self.warnings(daemon)), "a warning", daemon=daemon)

    def mismatched(self) -> tuple[Path, Path]:
        return self.authority.issue("x", days=90)[0], self.authority.issue("y", days=90)[1]

    def warnings(self, daemon: Daemon) -> Sequence[str]:
        found: Sequence[str] = self.ask(daemon, "/readyz").json.get("warnings", [])
        return found

    def ask_on(self, connection: HTTPSConnection) -> None:
        connection.request("GET", "/pubkey")
        response = connection.getresponse()
        self.assertEqual((200, True), (response.status, bool(response.read())))
