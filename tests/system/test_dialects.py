"""NARs of every dialect, and NARs that clients ask for without their narinfo."""

from __future__ import annotations

from tests.e2e.daemon import Daemon
from tests.system.caches import Dialect, StorePath, to_base32
from tests.system.faults import (
    Cut,
    Fault,
    Only,
    WrongBytes,
)
from tests.system.stage import Stage
from tests.system.wire import Answer

SIZE = 600_000
MIDDLE = 300_000


class UnknownNarTests(Stage):
    """NARs that clients ask for without their narinfo."""

    def test_name_vouches_for_the_bytes(self) -> None:
        """A client with an old narinfo gets the NAR by its name alone, which verifies the bytes."""
        path = self.cache.add(SIZE)
        daemon = self.daemon(self.mounted())
        answer = self.ask(daemon, path.nar_target)
        self.assertEqual((200, path.file), (answer.status, answer.body))

    def test_wrong_bytes_under_a_name_are_not_served(self) -> None:
        """Bytes that do not match the name never look complete."""
        path = self.cache.add(SIZE)
        daemon = self.daemon(self.mounted(WrongBytes(MIDDLE)))
        answer = self.ask(daemon, path.nar_target)
        self.assertFalse(answer.whole and answer.status == 200)
        self.assertEqual([], daemon.stored_nars())

    def test_unknown_nar_is_404_and_remembered(self) -> None:
        """A NAR that no upstream has is 404, and upstreams are asked once."""
        origin = self.origin()
        daemon = self.daemon(origin)
        target = f"/nar/{to_base32(bytes(32))}.nar.xz"
        self.assertEqual([404, 404], [self.ask(daemon, target).status for _ in range(2)])
        self.assertEqual(1, origin.gets(target))


class DialectTests(Stage):
    """Every dialect of upstreams (see `Dialect`)."""

    def assert_speaks(self, dialect: Dialect, *faults: Fault, compression: str = "zstd") -> None:
        """Check that a path in this dialect is served and stored, cold, warm and in part."""
        path = self.cache.add(SIZE, dialect=dialect, compression=compression)
        origin = self.mounted(*faults)
        daemon = self.daemon(origin)
        narinfo = self.narinfo(daemon, path)
        self.assertEqual(200, narinfo.status, daemon.log)
        self.assertRegex(
            narinfo.fields["URL"],
            r"^nar/([0-9a-df-np-sv-z]{52}|[0-9a-f]{64})\.nar(\.[a-z0-9]+)?$",
        )
        self.assertEqual(path.compression, narinfo.fields["Compression"])
        self.assertEqual(dict(path.fields())["Sig"], self._upstream_signature(narinfo))
        self.assert_same(daemon, path)
        self.wait_until_stored(daemon, path)
        origin.stop()
        self.assert_same(daemon, path)
        target = self.nar_target(daemon, path)
        part = self.ask(daemon, target, Range="bytes=1000-1999")
        self.assertEqual((206, path.file[1000:2000]), (part.status, part.body))
        again = self.narinfo(daemon, path)
        self.assertEqual(narinfo.fields["URL"], again.fields["URL"])
        self.assertEqual(str(len(path.file)), again.fields["FileSize"])

    def _upstream_signature(self, narinfo: Answer) -> str:
        lines = narinfo.body.decode().splitlines()
        start = f"Sig: {self.cache.key.name}:"
        return next(line[5:] for line in lines if line.startswith(start))

    def assert_same(self, daemon: Daemon, path: StorePath) -> None:
        self.assert_served(daemon, path)

    def test_plain(self) -> None:
        """A cache made by Nix."""
        self.assert_speaks(Dialect.PLAIN)

    def test_hex(self) -> None:
        """File names in hexadecimal."""
        self.assert_speaks(Dialect.HEX)

    def test_nix_serve(self) -> None:
        """nix-serve's names with a prefix; a client that remembers one gets its NAR."""
        self.assert_speaks(Dialect.NIX_SERVE)
        path = self.cache.add(SIZE, dialect=Dialect.NIX_SERVE)
        daemon = self.daemon(self.mounted())
        for header, body in (({}, path.file), ({"Range": "bytes=100-"}, path.file[100:])):
            answer = self.ask(daemon, path.nar_target, **header)
            self.assertEqual((body, True), (answer.body, answer.whole))
        wrong = path.nar_target.replace(".nar", ".nar.xz")
        self.assertEqual(404, self.ask(daemon, wrong).status)

    def test_uuid(self) -> None:
        """Cachix's UUIDs."""
        self.assert_speaks(Dialect.UUID)

    def test_snix(self) -> None:
        """snix' opaque paths with queries."""
        self.assert_speaks(Dialect.SNIX)

    def test_attic(self) -> None:
        """Attic's .nar with zstd inside."""
        self.assert_speaks(Dialect.ATTIC)

    def test_bare(self) -> None:
        """Neither FileHash nor FileSize."""
        self.assert_speaks(Dialect.BARE)

    def test_bare_cut_in_the_middle(self) -> None:
        """Neither FileHash nor FileSize, and a connection that breaks: ncps resumes."""
        self.assert_speaks(Dialect.BARE, Only(Cut(MIDDLE, reset=True), 1))

    def test_bare_xz(self) -> None:
        """Neither FileHash nor FileSize of an xz file: NarHash decides."""
        self.assert_speaks(Dialect.BARE, compression="xz")

    def test_zero_size(self) -> None:
        """FileSize 0."""
        self.assert_speaks(Dialect.ZERO_SIZE)

    def test_encoded(self) -> None:
        """ncps decodes Harmonia's Content-Encoding."""
        self.assert_speaks(Dialect.ENCODED, compression="none")

    def test_encoded_xz(self) -> None:
        """ncps decodes a Content-Encoding around a compressed file once, not twice."""
        self.assert_speaks(Dialect.ENCODED, compression="xz")

    def test_encoded_cut_in_the_middle(self) -> None:
        """A Content-Encoding and a connection that breaks: ncps fetches again and mixes nothing."""
        self.assert_speaks(Dialect.ENCODED, Only(Cut(MIDDLE), 1), compression="none")

    def test_unstated(self) -> None:
        """No Compression means bzip2."""
        self.assert_speaks(Dialect.UNSTATED)

    def test_hex_fields(self) -> None:
        """Hashes in hexadecimal within the narinfo."""
        self.assert_speaks(Dialect.HEX_FIELDS)

    def test_every_compression(self) -> None:
        """none, xz, zstd, bzip2, br, gzip and lz4 pass through unchanged."""
        names = ("none", "xz", "zstd", "bzip2", "br", "gzip", "lz4")
        paths = [self.cache.add(SIZE, compression=name) for name in names]
        daemon = self.daemon(self.mounted())
        for _ in range(2):
            for path in paths:
                self.assert_served(daemon, path)
