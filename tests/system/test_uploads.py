"""Uploads over sockets: the state after the death of the daemon, and after a cut upload."""

from __future__ import annotations

import socket
from contextlib import closing

from ncps.nix.narinfo import NarInfo
from tests.e2e.daemon import Daemon
from tests.fakes.samples import Sample
from tests.system.stage import Stage
from tests.system.wire import raw_status, send_raw
from tests.unit.cache.write.rig import upload
from tests.waiting import wait_until

ALLOWED = "--cache-allow-put-verb"


class UploadTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.served_by = self.daemon("http://127.0.0.1:9", options=(ALLOWED,))

    def put(self, path: str, data: bytes, *, whole: bool = True) -> int:
        """Upload; return the status."""
        size = len(data) if whole else len(data) + 1
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n"
        request = f"{head}\r\n".encode() + data
        return raw_status(send_raw(("127.0.0.1", self.served_by.port), request))

    def put_nar(self, one: Sample) -> int:
        return self.put(f"/upload/{one.url}", one.file)

    def put_narinfo(self, one: Sample) -> int:
        return self.put(f"/upload/{one.digest}.narinfo", one.narinfo.render())

    def head(self, path: str) -> int:
        return self.ask(self.served_by, path, method="HEAD").status

    def reborn(self) -> Daemon:
        """Kill the daemon and start it again."""
        self.served_by.kill()
        self.served_by.start()
        return self.served_by

    def test_answered_uploads_survive_a_kill(self) -> None:
        """The daemon is killed after each answer: accepted uploads are there."""
        for compression in ("none", "xz"):
            one = upload(compression, compression, 3_000_000)
            self.assertEqual(404, self.head(f"/upload/{one.url}"))
            self.assertEqual(201, self.put_nar(one))
            self.reborn()
            self.assertEqual(200, self.head(f"/upload/{one.url}"))
            self.assertEqual(404, self.head(f"/upload/{one.digest}.narinfo"))
            self.assertEqual(201, self.put_narinfo(one))
            self.reborn()
            self.assertEqual(200, self.head(f"/upload/{one.digest}.narinfo"))
            answer = self.ask(self.served_by, f"/{one.digest}.narinfo")
            narinfo = NarInfo.parse(answer.body)
            self.assertEqual(one.narinfo.nar_hash, narinfo.nar_hash)
            self.assertEqual(one.file, self.ask(self.served_by, f"/{narinfo.url}").body)
            self.assertEqual((200, 200), (self.put_nar(one), self.put_narinfo(one)))

    def test_a_kill_in_the_middle_leaves_nothing(self) -> None:
        """The path is not there, no file has its name, and a complete upload succeeds later."""
        one = upload("cut", "none", 3_000_000)
        with closing(socket.create_connection(("127.0.0.1", self.served_by.port))) as client:
            head = f"PUT /upload/{one.url} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(one.file)}"
            client.sendall(f"{head}\r\n\r\n".encode() + one.file[:1_500_000])
            wait_until(
                lambda: self.metric(self.served_by, "ncps_upload_bytes_total") >= 1_000_000,
                "the daemon to have a part of the upload",
            )
            self.reborn()
        self.assertEqual(404, self.head(f"/upload/{one.url}"))
        self.assertEqual([], self.served_by.stored_nars())
        self.assertEqual((201, 201), (self.put_nar(one), self.put_narinfo(one)))

    def test_bad_uploads_are_refused(self) -> None:
        """Flipped bits, another name, a narinfo without its NAR, a false narinfo are refused."""
        one, other = upload("one"), upload("other")
        flipped = bytearray(one.file)
        flipped[len(flipped) // 2] ^= 1
        self.assertEqual(400, self.put(f"/upload/{one.url}", bytes(flipped)))
        self.assertEqual(400, self.put(f"/upload/{other.url}", one.file))
        self.assertEqual(400, self.put_narinfo(one))
        self.assertEqual(201, self.put_nar(one))
        self.assertEqual(409, self.put(f"/upload/{one.url}", bytes(flipped)))
        lie = one.narinfo.render().replace(b"NarSize: 1", b"NarSize: 2")
        for text in (lie, other.narinfo.render(), b"<html>"):
            self.assertEqual(400, self.put(f"/upload/{one.digest}.narinfo", text))
        self.assertEqual(404, self.head(f"/upload/{one.digest}.narinfo"))
        self.assertEqual(1, len(self.served_by.stored_nars()))
