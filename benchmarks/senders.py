"""Clients that upload large NARs at the same time, in a process of their own.

    python -m benchmarks.senders hold PORT CONNECTIONS SIZE
    python -m benchmarks.senders plain PORT CONNECTIONS SIZE
    python -m benchmarks.senders whole PORT CONNECTIONS SIZE

`hold` announces files of SIZE bytes and sends them as fast as possible, without their last bytes,
until its standard input closes; it prints a line when all uploads have begun. `plain` sends whole
files of about SIZE bytes. `whole` sends whole files in zstd, whose NARs have about SIZE bytes. Each
prints one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator

import zstandard

from benchmarks.material import nar_blocks
from tests.system.caches import to_base32

PIECE = 1 << 20
NOISE = PIECE // 64
"""Incompressible bytes in each MiB."""


class Sender(threading.Thread):
    """One upload.

    :ivar sent: bytes of the body that were sent.
    :ivar trouble: the error, or the status line of an answer that is not a success.
    """

    def __init__(self, port: int, size: int, seed: int, how: str) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.trouble = ""
        self._port = port
        self._size = size
        self._seed = seed
        self._send = {
            "hold": self._send_most,
            "plain": self._send_plain,
            "whole": self._send_whole,
        }[how]

    def run(self) -> None:
        """See `threading.Thread`."""
        try:
            with socket.create_connection(("127.0.0.1", self._port)) as line:
                self._send(line)
        except OSError as error:
            self.trouble = str(error)

    def _begin(self, line: socket.socket, digest: bytes, ending: str, size: int) -> None:
        path = f"/upload/nar/{to_base32(digest)}.nar{ending}"
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        line.sendall(head.encode())

    def _send_most(self, line: socket.socket) -> None:
        """Send all but the last bytes; keep the connection until the process ends."""
        size = self._size + sum(map(len, nar_blocks(0, self._seed)))
        self._begin(line, hashlib.sha256(b"%d" % self._seed).digest(), "", size)
        for block in nar_blocks(self._size, self._seed):
            if self.sent + len(block) >= size:
                threading.Event().wait()
            line.sendall(block)
            self.sent += len(block)

    def _send_plain(self, line: socket.socket) -> None:
        digest, size = hashlib.sha256(), 0
        for block in nar_blocks(self._size, self._seed):
            digest.update(block)
            size += len(block)
        self._begin(line, digest.digest(), "", size)
        for block in nar_blocks(self._size, self._seed):
            line.sendall(block)
            self.sent += len(block)
        self._see_success(line)

    def _send_whole(self, line: socket.socket) -> None:
        file = b"".join(self._pieces())
        self._begin(line, hashlib.sha256(file).digest(), ".zst", len(file))
        line.sendall(file)
        self.sent = len(file)
        self._see_success(line)

    def _see_success(self, line: socket.socket) -> None:
        answer = line.recv(PIECE)
        if b" 201 " not in answer.partition(b"\r\n")[0]:
            self.trouble = answer.partition(b"\r\n")[0].decode()

    def _pieces(self) -> Iterator[bytes]:
        """Yield a file in zstd; a 64th part of each MiB of its NAR is random."""
        encoder = zstandard.ZstdCompressor(level=1).compressobj()
        for block in nar_blocks(self._size, self._seed):
            is_full = len(block) == PIECE
            yield encoder.compress(block[:NOISE] + bytes(PIECE - NOISE) if is_full else block)
        yield encoder.flush()


def main() -> None:
    """Run all uploads, and print the result."""
    how, port, connections, size = sys.argv[1], *map(int, sys.argv[2:5])
    senders = [Sender(port, size, seed, how) for seed in range(connections)]
    began = time.monotonic()
    for sender in senders:
        sender.start()
    if how != "hold":
        for sender in senders:
            sender.join()
    else:
        while any(sender.is_alive() and not sender.sent for sender in senders):
            time.sleep(0.1)
        print("all have begun", flush=True)
        sys.stdin.read()
    found = {
        "sent": sum(sender.sent for sender in senders),
        "started": sum(sender.sent > 0 for sender in senders),
        "troubles": [sender.trouble for sender in senders if sender.trouble],
        "seconds": time.monotonic() - began,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
