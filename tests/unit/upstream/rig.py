"""A small server on connections in memory, and the RemoteCache that asks it."""

from __future__ import annotations

import re
import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ncps.codec.ratio import USUAL
from ncps.nix.narinfo import MAX_SIZE
from ncps.nix.realisation import Realisation
from ncps.observe.metrics import Metrics
from ncps.ports import Upstream
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.agent import Client
from ncps.upstream.destination import Destination, Timeouts
from ncps.upstream.remote import AnswerLimits, RemoteAddress, RemoteCache
from tests.contract.upstream import Origin, UpstreamCase
from tests.fakes.metrics import counted, series
from tests.fakes.samples import Sample, compressed
from tests.fakes.threads import InlineThreads
from tests.fakes.wire import Line, Wire

BASE = "http://127.0.0.1:8080/sub"
TIMEOUTS = Timeouts(connect_s=3, first_byte_s=3, nar_s=50, idle_s=20)
LIMITS = AnswerLimits(narinfo_size=MAX_SIZE, max_ratio=USUAL)
FEW = UpstreamsSettings(max_connections=2, max_queries=2)
_RANGE = re.compile(rb"range: bytes=([0-9]+)-(0?)\r\n", re.IGNORECASE)


class HttpOrigin(Origin):
    """A small HTTP server on `Wire`, and its client."""

    def __init__(self, bounds: UpstreamsSettings = FEW, narinfo_size: int = MAX_SIZE) -> None:
        self.wire = Wire()
        self.metrics = Metrics()
        self.client = Client(
            self.wire,
            Destination(base_url=BASE, timeouts=TIMEOUTS),
            bounds=bounds,
            metrics=self.metrics,
        )
        self.upstream: Upstream = RemoteCache(
            self.client,
            RemoteAddress(name="127.0.0.1:8080/sub", base_url=BASE + "/", priority=40),
            clock=self.wire,
            workers=InlineThreads(),
            metrics=self.metrics,
            limits=AnswerLimits(narinfo_size=narinfo_size, max_ratio=USUAL),
        )
        self.files: dict[str, bytes] = {"nix-cache-info": b"StoreDir: /nix/store\nPriority: 30\n"}
        self.requests: list[bytes] = []
        self.status = ""
        self.headers: dict[str, str] = {}
        self.cut_at: int | None = None
        self.stall_at: int | None = None
        self.has_ranges = True
        self.head_status = ""
        self.closes = False

    @property
    def reached(self) -> dict[str, float]:
        """Limits that were reached, by the name of their setting."""
        return series(self.metrics.limit_reached)

    @property
    def fetched(self) -> float:
        """Number of bytes received."""
        return counted(self.metrics.bytes_fetched(self.upstream.name))

    def add(self, sample: Sample) -> None:
        self.files[f"{sample.digest}.narinfo"] = sample.narinfo.render()
        self.files[sample.url] = sample.file

    def put(self, path: str, data: bytes) -> None:
        self.files[path] = data

    def add_realisation(self, realisation: Realisation) -> None:
        self.files[f"{realisation.key.path}.doi"] = realisation.render()

    def spoil(self, sample: Sample) -> None:
        self.files[f"{sample.digest}.narinfo"] = b"<html>log in</html>"

    def fail(self) -> None:
        self.status = "503 Service Unavailable"

    def cut(self, at: int) -> None:
        self.cut_at = at

    def stall(self, at: int) -> None:
        self.stall_at = at

    def ignore_ranges(self) -> None:
        self.has_ranges = False

    def work(self) -> None:
        if self.wire.pending:
            self.wire.accept()
        for line in self.wire.lines:
            request = line.sent
            if request:
                self.requests.append(request)
                self._respond(line, request)
        self.wire.advance(0)

    def _respond(self, line: Line, request: bytes) -> None:
        method, path, _ = request.decode().split(" ", 2)
        file = self.files.get(path.removeprefix("/sub/"))
        wanted = _RANGE.search(request)
        if self.status:
            line.answer(self.status, b"sorry", **self.headers)
        elif method == "HEAD" and self.head_status:
            line.answer(self.head_status, b"", content_length="0")
        elif self.closes and file is not None:
            ended_by_close(line, file, **self.headers)
        elif file is None:
            line.answer("404 Not Found", b"" if method == "HEAD" else b"no")
        elif method == "HEAD":
            line.answer("200 OK", b"", content_length=str(len(file)), **self.headers)
        elif wanted and self.has_ranges:
            start = int(wanted[1])
            stop = 1 if wanted[2] else len(file)
            extent = f"bytes {start}-{stop - 1}/{len(file)}"
            headers = {"content_range": extent, **self.headers}
            line.answer("206 Partial Content", file[start:stop], **headers)
        elif self.stall_at is not None:
            line.answer("200 OK", file[: self.stall_at], content_length=str(len(file)))
        elif self.cut_at is not None:
            headers = {"content_length": str(len(file)), **self.headers}
            line.answer("200 OK", file[: self.cut_at], **headers)
            line.cut()
        else:
            line.answer(body=file, **self.headers)


def ended_by_close(line: Line, body: bytes, **headers: str) -> None:
    """Answer like HTTP/1.0: the end of the connection is the end of the body."""
    lines = ["HTTP/1.0 200 OK", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    line.say("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    line.end()


class RemoteCase(UpstreamCase, SynchronousTestCase):
    def origin(self) -> Origin:
        self.http = HttpOrigin()
        return self.http

    def open(self, offset: int = 0, **options: Any) -> Any:
        return self.upstream.open_nar(self.sample.url, offset=offset, **options)

    def compressed(self, name: str = "zstd") -> bytes:
        if name == "deflate":
            return zlib.compress(self.sample.nar)
        return compressed(self.sample.nar, name)

    def bounded(self, narinfo_size: int = MAX_SIZE, **bounds: Any) -> None:
        """Continue with an origin whose client has these bounds."""
        self.http = self.there = HttpOrigin(UpstreamsSettings(**bounds), narinfo_size)
        self.http.add(self.sample)
        self.upstream = self.http.upstream
