"""An origin that generates one large NAR while it sends it, at a given rate, without a file.

    python -m benchmarks.generator SIZE BYTES_PER_SECOND

Prints one line of JSON: its port, and the digest and path of the NAR.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.material import MadeNar, describe, nar_blocks

SEED = 1


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    made: MadeNar
    contents: int
    rate: int

    def do_GET(self) -> None:
        """See `BaseHTTPRequestHandler`."""
        if self.path == self.made.path:
            self._head(self.made.size)
            with suppress(OSError):  # ncps may be killed before the end of the NAR
                self._pour()
        elif self.path in {f"/{self.made.digest}.narinfo", "/nix-cache-info"}:
            is_info = self.path == "/nix-cache-info"
            body = b"StoreDir: /nix/store\n" if is_info else self.made.narinfo
            self._head(len(body))
            self.wfile.write(body)
        else:
            self.send_error(404)

    def _head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _pour(self) -> None:
        began = time.monotonic()
        sent = 0
        for block in nar_blocks(self.contents, SEED):
            self.wfile.write(block)
            sent += len(block)
            time.sleep(max(0.0, began + sent / self.rate - time.monotonic()))

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main(contents: int, rate: int) -> None:
    """Serve until killed."""
    digest, size = hashlib.sha256(), 0
    for block in nar_blocks(contents, SEED):
        digest.update(block)
        size += len(block)
    _Answers.made = describe(digest.digest(), size, random.Random(SEED))
    _Answers.contents, _Answers.rate = contents, rate
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    print(
        json.dumps(
            {
                "port": server.server_port,
                "digest": _Answers.made.digest,
                "path": _Answers.made.path,
            }
        ),
        flush=True,
    )
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
