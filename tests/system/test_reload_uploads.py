"""SIGHUP: the limits of uploads are read again, and an upload that has begun goes on."""

from __future__ import annotations

import yaml

from tests.system.crew import START_DEADLINE
from tests.system.test_reload import ReloadStage
from tests.system.uploader import UploadStage, head
from tests.unit.cache.write.rig import upload
from tests.waiting import wait_until


class UploadReloadTests(ReloadStage, UploadStage):
    def set(self, **limits: str | bool) -> None:
        """Write the file with these settings of uploads."""
        urls = {"urls": ["http://127.0.0.1:9"], "public-keys": [self.cache.key.public]}
        branch = {key.replace("_", "-"): value for key, value in limits.items()}
        cache = {"allow-put-verb": True, "upstream": urls, "upload": branch}
        self.file.write_text(yaml.safe_dump({"cache": cache}))

    def test_size_references_and_grace(self) -> None:
        """The next upload meets the new limits; a NAR on its way the one that it began with."""
        self.set(max_size="10M", grace="1h")
        files = ["--config", str(self.file), "--netrc-file", str(self.netrc)]
        daemon = self.make_daemon(options=files)
        daemon.constants = {"ncps.assembly.uploads.ABANDONED_S": 1.0}
        daemon.start(deadline=START_DEADLINE)
        large, small = upload("large", "none", 16_000_000), upload("small", "none", 8_000_000)
        self.refuse(413, "cache-upload-max-size", self.put_nar(daemon, large))
        line = self.connect(daemon)
        line.sendall(head(f"/upload/{small.url}", "Transfer-Encoding: chunked"))
        line.sendall(b"%x\r\n%b\r\n" % (6_000_000, small.file[:6_000_000]))
        wait_until(
            lambda: self.metric(daemon, "ncps_upload_bytes_total") > 0, "a part", daemon=daemon
        )
        self.set(max_size="500K", grace="1m")
        said = self.reload(daemon, "reloaded: cache.upload.grace")
        self.assertIn("reloaded: cache.upload.max-size: 500K instead of 10M", "\n".join(said))
        rest = small.file[6_000_000:]
        line.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        self.assertEqual(201, self.answer(line)[0])
        self.refuse(
            413, "cache-upload-max-size", self.put_nar(daemon, upload("x", "none", 800_000))
        )
        self.set(max_size="20M", grace="1m", require_references=True)
        self.reload(daemon, "reloaded: cache.upload.require-references")
        self.assertEqual(201, self.put_nar(daemon, large)[0])
