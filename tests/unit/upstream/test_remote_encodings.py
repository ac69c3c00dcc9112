"""RemoteCache decodes the Content-Encoding of answers."""

from __future__ import annotations

import zlib

from ncps.codec import encoder
from ncps.errors import Corrupt
from tests.unit.upstream.rig import RemoteCase


class EncodingTests(RemoteCase):
    def test_wire_encoding_is_undone(self) -> None:
        """A NAR that is compressed only for transport arrives decoded, with unknown size."""
        for name in ("zstd", "gzip", "br", "xz", "bzip2", "deflate"):
            data = self.compressed(name)
            self.http.files[self.sample.url] = data
            self.http.headers = {"content_encoding": name}
            before = self.http.fetched
            body = self.get(self.open(allow_encoding=True))
            self.assertIsNone(body.total)
            self.assertEqual(self.sample.nar, self.get(self.read(body)))
            self.assertEqual(len(data), self.http.fetched - before)

    def test_narinfos_are_freed_of_deflate(self) -> None:
        """Both formats that servers call deflate are decoded, and a truncation is noticed."""
        self.http.headers = {"content_encoding": "deflate"}
        path, text = f"{self.sample.digest}.narinfo", self.sample.narinfo.render()
        bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        for data in (zlib.compress(text), bare.compress(text) + bare.flush()):
            self.http.files[path] = data
            self.assertEqual(
                self.sample.narinfo, self.get(self.upstream.narinfo(self.sample.digest))
            )
            for wrong in (data[:-5], data + b"more", data[:1], b""):
                self.http.files[path] = wrong
                self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)

    def test_encoding_is_asked_for_only_where_welcome(self) -> None:
        """Only uncompressed NARs, from their start, may be compressed for transport."""
        for offset, allowed, expected in (
            (0, True, b"zstd"),
            (0, False, b"identity"),
            (5, True, b"identity"),
        ):
            self.get(self.open(offset=offset, allow_encoding=allowed)).close()
            self.assertIn(b"Accept-Encoding: " + expected, self.http.requests[-1])

    def test_broken_encoding_is_corrupt(self) -> None:
        """A stream that ends within its compression is noticed, and so is an unknown one."""
        self.http.headers = {"content_encoding": "zstd"}
        self.http.files[self.sample.url] = self.compressed()[:-9]
        body = self.get(self.open(allow_encoding=True))
        self.refused(self.read(body), Corrupt)
        self.http.headers = {"content_encoding": "sdch"}
        self.refused(self.read(self.get(self.open())), Corrupt)

    def test_encoded_narinfo_is_read(self) -> None:
        """A narinfo may be compressed for transport, too."""
        name = f"{self.sample.digest}.narinfo"
        maker = encoder("gzip")
        self.http.files[name] = maker.feed(self.http.files[name]) + maker.finish()
        self.http.headers = {"content_encoding": "x-gzip"}
        self.assertEqual(self.sample.narinfo, self.get(self.upstream.narinfo(self.sample.digest)))

    def test_size_of_an_encoded_nar_is_unknown(self) -> None:
        """The transferred size is not the size of the NAR."""
        self.http.headers = {"content_encoding": "zstd"}
        self.assertIsNone(self.get(self.upstream.stat_nar(self.sample.url)))
