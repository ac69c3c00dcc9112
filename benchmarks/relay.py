"""Relay: delays the bytes of a server on this machine as a network with a long round trip does.

`python -m benchmarks.relay TARGET_PORT SECONDS` prints the port on which it listens, and passes all
bytes on to 127.0.0.1:TARGET_PORT. Bytes in each direction are half a round trip late. The first
bytes of a connection are a whole round trip later, as after the handshake of TCP.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections import deque
from typing import Final

from benchmarks.machine import PROJECT

PIECE: Final = 256 * 1024


class Relay:
    """A relay in a process of its own, until `stop`.

    :ivar port: the port on which it listens.
    """

    def __init__(self, target_port: int, round_trip_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.relay", str(target_port), str(round_trip_s)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop the relay."""
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


async def _pass_on(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float, extra_s: float
) -> None:
    """Write each piece to the sink after `delay_s`; the first pieces after `extra_s` more."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    late: deque[tuple[float, bytes]] = deque()
    there = asyncio.Event()

    async def write() -> None:
        while True:
            while not late:
                there.clear()
                await there.wait()
            due, piece = late.popleft()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not piece:
                sink.close()
                return
            sink.write(piece)
            await sink.drain()

    writing = loop.create_task(write())
    try:
        while True:
            piece = await source.read(PIECE)
            late.append((max(loop.time(), began + extra_s) + delay_s, piece))
            there.set()
            if not piece:
                await writing
                return
    except OSError:
        pass
    finally:
        writing.cancel()
        sink.close()


async def _serve(target_port: int, round_trip_s: float) -> None:
    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead = await asyncio.open_connection("127.0.0.1", target_port)
        half = round_trip_s / 2
        await asyncio.gather(
            _pass_on(reader, ahead[1], half, round_trip_s),
            _pass_on(ahead[0], writer, half, 0.0),
            return_exceptions=True,
        )

    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = await asyncio.start_server(joined, sock=listening, limit=PIECE)
    print(listening.getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
