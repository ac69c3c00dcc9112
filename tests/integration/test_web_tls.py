"""The web layer over TLS: the same as on plain sockets, and failed handshakes."""

from __future__ import annotations

import socket
import ssl
import warnings
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.threads import deferToThread

from ncps.aio.tls import verified
from ncps.web.fast.tls import encrypt
from tests.integration import test_hot_files, test_sent_files, test_web
from tests.integration.encrypted import authority, certificates, client_context
from tests.integration.web_client import Client

reactor: Any = _reactor


class EncryptedWebTests(test_web.WebTests):
    """Limits, slow and leaving clients, answers from memory: as on plain sockets."""

    stall_s = 1.2
    # With records of 16 KiB on the loopback, the kernel acknowledges every fourth of these reads.

    def prepare(self, port: Any) -> None:
        encrypt(port, certificates(self.metrics, handshake_s=0.3))

    def endpoint(self) -> Any:
        roots = trustRootFromCertificates([Certificate.loadPEM(authority().path.read_bytes())])
        return wrapClientTLS(verified("127.0.0.1", trust=roots), super().endpoint())

    async def connect(self) -> Client:
        """Connect and finish the handshake, so that the test finds the connection ready."""
        client = await super().connect()
        while not client.transport._handshakeDone and not client.ended.called:
            await self.pause(0.005)
        return client

    def handshakes(self, result: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "ncps_tls_handshakes_total", {"result": result}
        )

    async def talk(self, first: bytes, context: ssl.SSLContext | None = None) -> bytes:
        """Send bytes with or without TLS, and return all received bytes."""

        def talk() -> bytes:
            address = ("127.0.0.1", self.port.getHost().port)
            with socket.create_connection(address, 10.0) as line:
                if context is None:
                    line.sendall(first)
                    return test_sent_files.read_all(line)
                with context.wrap_socket(line, server_hostname="127.0.0.1") as dressed:
                    dressed.sendall(first)
                    return test_sent_files.read_all(dressed)

        data: bytes = await deferToThread(talk)
        return data

    async def test_client_that_speaks_no_tls_is_told(self) -> None:
        """Plain HTTP gets a 400 that says what to use."""
        data = await self.talk(b"GET /pubkey HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(data.startswith(b"HTTP/1.1 400 "), data)
        self.assertTrue(data.endswith(b"\r\n\r\nThis address speaks TLS: ask it by https://.\n"))
        self.assertIn(b"\r\nContent-Length: 45\r\n", data)
        self.assertEqual(1, self.handshakes("plain_http"))

    async def test_garbage_and_silence_are_no_handshake(self) -> None:
        """Garbage ends immediately, silence after the time for the handshake; both are counted."""
        await self.talk(b"\0" * 100)
        self.assertEqual(1, self.handshakes("other"))
        with self.assertRaises(ConnectionResetError):
            await self.talk(b"")
        self.assertEqual(1, self.handshakes("timeout"))
        self.assertEqual(
            1,
            self.metrics.registry.get_sample_value(
                "ncps_limit_reached_total", {"limit": "server-tls-handshake-timeout"}
            ),
        )

    async def test_old_versions_and_weak_ciphers_are_refused(self) -> None:
        """Versions below TLS 1.2 and ciphers without forward secrecy are refused."""
        old = client_context()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():  # Python warns of the purpose of this test
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        weak = client_context()
        weak.set_ciphers("AES256-GCM-SHA384")
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        for context in (old, weak):
            with self.assertRaises(ssl.SSLError):
                await self.talk(b"", context)
        self.assertEqual(2, self.handshakes("no_agreement"))

    async def test_an_end_in_order_says_so(self) -> None:
        """The end is one of TLS, so it is no truncation attack; ALPN offers only HTTP/1.1."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context()
            context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])

            def talk(context: ssl.SSLContext = context) -> tuple[str | None, bytes]:
                address = ("127.0.0.1", self.port.getHost().port)
                with (
                    socket.create_connection(address, 10.0) as plain,
                    context.wrap_socket(
                        plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False
                    ) as line,
                ):
                    line.sendall(b"GET /pubkey HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    return line.selected_alpn_protocol(), test_sent_files.read_all(line)

            protocol, data = await deferToThread(talk)
            self.assertEqual("http/1.1", protocol)
            self.assertTrue(data.startswith(b"HTTP/1.1 200 "))


class EncryptedFileTests(test_sent_files.SentFileTests):
    """Stored NARs: every byte of a file, with all faults of files and clients."""

    def prepare(self, port: Any) -> None:
        encrypt(port, certificates(self.metrics))

    def dressed(self, line: socket.socket) -> socket.socket:
        return client_context().wrap_socket(line, server_hostname="127.0.0.1")


class EncryptedHotFileTests(test_hot_files.HotFileTests, EncryptedFileTests):
    """The same for NARs that the connection sends by itself."""
