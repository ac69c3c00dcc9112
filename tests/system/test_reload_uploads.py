"""SIGHUP: the daemon reads the limits of uploads again, and running uploads continue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ncps.nix.keys import SecretKey
from tests.system.crew import START_DEADLINE
from tests.system.test_reload import ReloadStage
from tests.system.uploader import UploadStage, head
from tests.unit.cache.write.rig import by, upload
from tests.waiting import wait_until


class UploadReloadTests(ReloadStage, UploadStage):
    def set(self, more: Mapping[str, Any] | None = None, **limits: str | bool) -> None:
        """Write the file with these settings of uploads; `more` are other settings of the cache."""
        urls = {"urls": ["http://127.0.0.1:9"], "public-keys": [self.cache.key.public]}
        branch = {key.replace("_", "-"): value for key, value in limits.items()}
        cache = {"allow-put-verb": True, "upstream": urls, "upload": branch, **(more or {})}
        self.file.write_text(yaml.safe_dump({"cache": cache}))

    def test_keys_that_vouch(self) -> None:
        """After a reload a signature is required; a wrong key changes nothing.

        A later reload trusts another key in place of the former one.
        """
        own, other = SecretKey.generate("own-1"), SecretKey.generate("other-1")
        unsigned, first, second = (upload(name, "none", 10_000) for name in ("a", "b", "c"))

        def keys(*keys: SecretKey) -> dict[str, Any]:
            texts = [str(key.public) for key in keys]
            return {"require-trusted-signature": True, "trusted-upload-keys": texts}

        self.set()
        daemon = self.configured()
        for one in (unsigned, first, second):
            self.assertEqual(201, self.put_nar(daemon, one)[0])
        self.set(keys(own))
        self.reload(daemon, "reloaded: cache.require-trusted-signature: true instead of false")
        self.refuse(403, "cache-trusted-upload-key", self.put_narinfo(daemon, unsigned))
        self.refuse(403, "cache-trusted-upload-key", self.put_narinfo(daemon, by(first, other)))
        self.assertEqual(201, self.put_narinfo(daemon, by(first, own))[0])
        for wrong in (
            {"require-trusted-signature": True},
            {"trusted-upload-keys": ["own-1:short"]},
        ):
            self.set(wrong)
            said = self.reload(daemon, "nothing is reloaded")
            self.assertIn("trusted-upload-key", said[-1])
            self.refuse(403, "cache-trusted-upload-key", self.put_narinfo(daemon, unsigned))
        self.set(keys(other))
        self.reload(daemon, "reloaded: cache.trusted-upload-keys")
        self.refuse(403, "cache-trusted-upload-key", self.put_narinfo(daemon, by(second, own)))
        self.assertEqual(201, self.put_narinfo(daemon, by(second, other))[0])
        self.set()
        self.reload(daemon, "reloaded: cache.require-trusted-signature: false instead of true")
        self.assertEqual(201, self.put_narinfo(daemon, unsigned)[0])

    def test_size_references_and_grace(self) -> None:
        """The next upload has the new limits; a running one has those of its begin."""
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
