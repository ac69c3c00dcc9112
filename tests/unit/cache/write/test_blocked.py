"""Uploads of blocked paths: ncps refuses them early, and keeps no byte of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ncps.aio.clocks import utc_now
from ncps.errors import Refused
from ncps.nix.hashes import Hash
from ncps.ports.removals import Block
from tests.fakes.samples import Sample
from tests.unit.cache.write.rig import Sending, UploadCase, upload


class BlockedTests(UploadCase):
    def block(self, digest: str, *hashes: Hash) -> None:
        """Block a path, as `ncps rm --never-again` does."""
        block = Block(digest=digest, hashes=hashes, blocked_at=utc_now(self.clock))
        self.get(self.world.removals.block([block]))

    def block_in(self, call: Callable[..., Awaitable[Any]], one: Sample) -> Callable[..., Any]:
        """Block the path after the upload has passed all checks for that."""

        async def blocking(*args: Any) -> Any:
            self.block(one.digest, one.narinfo.nar_hash)
            return await call(*args)

        return blocking

    def test_a_blocked_file_is_refused_before_a_byte_is_read(self) -> None:
        """The client is told that it is blocked, and how to see that."""
        one = upload()
        assert one.narinfo.file_hash is not None
        self.block(one.digest, one.narinfo.file_hash)
        putting = self.uploads.put_nar(one.conventional, Sending(), len(one.file))
        self.assertIn("blocked", str(self.refused(putting, Refused)))
        self.assertNothingOf(one)

    def test_a_blocked_nar_in_another_compression_is_refused(self) -> None:
        """The name does not show it; the NAR inside does."""
        one = upload(compression="zstd")
        self.block("0" * 32, one.narinfo.nar_hash)
        self.refuse_nar(one.conventional, one.file, Refused)
        self.assertNothingOf(one)

    def test_a_blocked_path_is_refused(self) -> None:
        """A narinfo of it leaves nothing, also where its NAR was here as that of another path."""
        one = upload()
        self.put_nar(one)
        self.block(one.digest)
        self.assertIn("blocked", self.refuse_narinfo(one, Refused))
        self.assertNotIn(one.digest, self.catalog.entries)
        self.assertNotIn(one.digest, self.sidecars.texts)

    def test_a_path_that_is_blocked_at_this_moment(self) -> None:
        """Objects written after the block go: the bytes of a NAR, the narinfo beside it."""
        one = upload("nar")
        publishing = self.patch(self.store, "publish", self.block_in(self.store.publish, one))
        self.refuse_nar(one.conventional, one.file, Refused)
        self.assertNothingOf(one)
        publishing.restore()
        other = upload("narinfo")
        self.put_nar(other)
        self.patch(self.sidecars, "put", self.block_in(self.sidecars.put, other))
        self.refuse_narinfo(other, Refused)
        self.assertNotIn(other.digest, self.catalog.entries)
        self.assertNotIn(other.digest, self.sidecars.texts)
