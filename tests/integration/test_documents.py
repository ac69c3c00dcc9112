"""Documents over HTTP, from a server on a real socket."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from ncps.upstream.agent import Client
from ncps.upstream.destination import Destination
from ncps.upstream.documents import TIMEOUTS, HttpDocuments
from tests.contract.documents import DocumentsContract
from tests.system.faults import Redirect, Silence
from tests.system.origin import Origin

reactor = cast("Any", _reactor)


class HttpDocumentsTests(DocumentsContract, TestCase):
    def setUp(self) -> None:
        self.server = Origin()
        self.server.start()
        self.addCleanup(self.server.stop)
        client = Client(reactor, Destination(base_url=self.server.url, timeouts=TIMEOUTS))
        self.addCleanup(client.close)
        self.documents = HttpDocuments(client, reactor)

    def publish(self, name: str, data: bytes) -> str:
        return self.server.serve(f"/{name}", data)

    def withdraw(self, name: str) -> None:
        self.server.withdraw(f"/{name}")

    def redirect(self, name: str, url: str) -> str:
        return self.server.serve(f"/{name}", b"", Redirect(url))

    def hang(self, name: str) -> str:
        return self.server.serve(f"/{name}", b"", Silence())
