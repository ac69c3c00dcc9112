"""The contract of every way to fetch documents."""

from __future__ import annotations

from abc import abstractmethod

from twisted.internet.defer import CancelledError

from ncps.errors import Corrupt, Unavailable
from ncps.ports import Documents
from tests.contract.running import Contract, start

TEXT = b'{"keys": []}'


class DocumentsContract(Contract):
    """Tests for a concrete class that controls the server of the documents."""

    documents: Documents

    @abstractmethod
    def publish(self, name: str, data: bytes) -> str:
        """Publish a document on the server from now on; return its URL."""

    @abstractmethod
    def withdraw(self, name: str) -> None:
        """Remove a document from the server."""

    @abstractmethod
    def redirect(self, name: str, url: str) -> str:
        """Redirect requests for a document to another URL; return the URL of the document."""

    @abstractmethod
    def hang(self, name: str) -> str:
        """Leave requests for a document without an answer; return its URL."""

    async def test_a_document_comes_as_it_is(self) -> None:
        """A document arrives as its bytes, whatever they are, also if there are none."""
        for data in (TEXT, b"", bytes(range(256))):
            self.assertEqual(data, await self.documents.fetch(self.publish("keys", data)))

    async def test_each_fetch_asks_again(self) -> None:
        """Nothing is cached: the caller decides how long a document is valid."""
        url = self.publish("keys", TEXT)
        self.assertEqual(TEXT, await self.documents.fetch(url))
        self.publish("keys", b"new")
        self.assertEqual(b"new", await self.documents.fetch(url))
        self.withdraw("keys")
        await self.assert_raises(Unavailable, self.documents.fetch(url))

    async def test_a_missing_document_is_not_an_absence(self) -> None:
        """A server without the document may have it a moment later: this is not NotFound."""
        url = self.publish("keys", TEXT)
        error = await self.assert_raises(Unavailable, self.documents.fetch(f"{url}-other"))
        self.assertEqual("status", error.kind)
        self.assertEqual(TEXT, await self.documents.fetch(url))

    async def test_a_document_that_is_too_large(self) -> None:
        """A document that is too large is refused, without reading more than the limit."""
        url = self.publish("keys", b"x" * (1 << 20))
        await self.assert_raises(Corrupt, self.documents.fetch(url))

    async def test_a_document_elsewhere(self) -> None:
        """The server cannot choose which other servers this cache asks."""
        other = self.publish("other", TEXT)
        await self.assert_raises(Corrupt, self.documents.fetch(self.redirect("keys", other)))
        self.assertEqual(TEXT, await self.documents.fetch(other))

    async def test_a_caller_that_leaves(self) -> None:
        """The fetch of such a caller ends immediately, and the next one is not disturbed."""
        fetching = start(self.documents.fetch(self.hang("slow")))
        fetching.cancel()
        await self.assert_raises(CancelledError, fetching)
        self.assertEqual(TEXT, await self.documents.fetch(self.publish("keys", TEXT)))
