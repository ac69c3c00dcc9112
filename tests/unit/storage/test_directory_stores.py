"""The contracts of blobs in a local directory, and of the smaller stores over them."""

import os
import stat
from pathlib import Path

from ncps.ports import Body
from ncps.storage import keys
from ncps.storage.stores import (
    BlobConfigStore,
    BlobExtraStore,
    BlobNarInfoStore,
    BlobNarStore,
    BlobRealisationStore,
)
from tests.contract.blobs import BlobsContract
from tests.contract.body import DATA, content
from tests.contract.config_store import ConfigStoreContract
from tests.contract.extra_store import KEYS, ExtraStoreContract
from tests.contract.nar_store import NarStoreContract
from tests.contract.narinfo_store import NarInfoStoreContract
from tests.contract.realisations import RealisationStoreContract
from tests.contract.running import synchronously
from tests.contract.samples import digest_of, key_of
from tests.unit.storage.rig import LocalTestCase


@synchronously
class DirectoryBlobsTests(BlobsContract, LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sources = self.root / "store" / "sources"
        self.blobs = self.new_blobs()


@synchronously
class NetworkNarStoreTests(NarStoreContract, LocalTestCase):
    """The store on a network file system: threads make all reads."""

    store: BlobNarStore

    def setUp(self) -> None:
        super().setUp()
        self.sources = self.root / "store" / "sources"
        self.store = BlobNarStore(self.new_blobs())

    async def test_every_read_goes_through_the_workers(self) -> None:
        """Threads open, read and look at files, and there are no segments."""
        await self.publish(key_of(1), DATA)
        self.workers.calls = 0
        await self.store.stat(key_of(1))
        body: Body = await self.store.open(key_of(1))
        self.assertIsNone(body.segment())
        self.assertEqual(self.workers.calls, 2)
        await content(body)
        self.assertEqual(self.workers.calls, 6)


@synchronously
class LocalExtraStoreTests(ExtraStoreContract, LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobExtraStore(self.new_blobs())

    async def test_foreign_files_are_passed_over(self) -> None:
        """Files of other names in the directories of extras are no extras."""
        await self.store.put(KEYS[0], b"log")
        path = self.root / keys.extra_key(KEYS[0])
        (path.parent / "README").write_bytes(b"")
        (path.parent.parent.parent / "0").mkdir(exist_ok=True)
        self.assertEqual([(KEYS[0], 3)], await self.walked("log", is_uploaded=False))


@synchronously
class LocalNarInfoStoreTests(NarInfoStoreContract, LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobNarInfoStore(self.new_blobs())

    async def test_narinfos_of_the_go_program_are_read(self) -> None:
        """A narinfo of an old Go program is found; other files beside it are not."""
        path = self.root / keys.narinfo_key(digest_of(1))
        path.parent.mkdir(parents=True)
        path.write_bytes(b"text")
        (path.parent / "README").write_bytes(b"")
        self.assertEqual(await self.store.get(digest_of(1)), b"text")
        self.assertEqual(await self.walked(), [digest_of(1)])


@synchronously
class LocalRealisationStoreTests(RealisationStoreContract, LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobRealisationStore(self.new_blobs())


@synchronously
class LocalConfigStoreTests(ConfigStoreContract, LocalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobConfigStore(self.new_blobs())

    async def test_secrets_are_for_this_user_only(self) -> None:
        """Other users may not read a key or list their names."""
        await self.store.create("cache.key", b"secret")
        path = self.root / "config" / "cache.key"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o400)
        self.assertEqual(stat.S_IMODE(path.parent.stat().st_mode), 0o700)

    async def test_a_value_that_appears_meanwhile_wins(self) -> None:
        """If a value appears during the creation, it wins."""
        real = os.link

        def link(source: Path, target: str) -> None:
            Path(target).write_bytes(b"theirs")
            real(source, target)

        self.patch(os, "link", link)
        self.assertEqual(await self.store.create("cache.key", b"ours"), b"theirs")
