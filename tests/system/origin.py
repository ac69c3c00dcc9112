"""The lying origin: an HTTP/1.1 server on loopback with exactly the faults that a test wants.

It runs on an asyncio loop in a thread of its own, beside the test and beside any reactor, and
writes every byte of every answer itself. Without faults it is a good file server: keep-alive,
Content-Length, HEAD and single byte ranges.

    with Origin() as origin:
        origin.serve("/nar/a.nar", body, Only(Cut(1000, reset=True), 1))
        ...
        assert origin.gets("/nar/a.nar") == 2

A path may be served with its query; without one it answers for every query. Everything here
may be called from any thread.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Self

from attrs import define, field, frozen

from tests.system.faults import Fault, Plan, Reply, Request
from tests.system.replies import render_head
from tests.waiting import free_port

PIECE = 64 * 1024
TURNS = 5  # seconds of the event loop, until accepted connections are answered

Outcome = Literal["open", "done", "cut", "left", "silent"]


@frozen
class Entry:
    """An object, its headers, and the faults of its answers."""

    content: bytes
    headers: tuple[tuple[str, str], ...] = ()
    plan: Plan = lambda _request: ()


@define(eq=False)
class Visit:
    """One entry of the log: a request and its outcome.

    :param peer: the client's port: the same for all requests of one connection.
    :param faults: the faults that the answer should have.
    :param sent: body bytes handed to the kernel.
    :param outcome: `open` while being answered, `done`, `cut` by a fault, `left` by the client,
        `silent` where no answer was meant.
    """

    request: Request
    peer: int = 0
    faults: tuple[Fault, ...] = ()
    status: int = 0
    sent: int = 0
    outcome: Outcome = "open"
    stalled: bool = False
    began: float = field(factory=time.monotonic)

    @property
    def target(self) -> str:
        """The request's target, query included."""
        return self.request.target

    @property
    def method(self) -> str:
        """The request's method."""
        return self.request.method


class Origin:
    """A scripted server on loopback; start and stop it, or use it as a context manager.

    :param port: 0 for any free one; it is kept over stop and start, so that an origin can be
        away for a while and come back.
    :param host: an address of loopback.
    :param tls: makes it a server of HTTPS.
    """

    def __init__(
        self, *, port: int = 0, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.port = port
        self._host = host
        self._tls = tls
        self.log: list[Visit] = []
        self.plan: Plan = lambda _request: ()
        self._entries: dict[str, Entry] = {}
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._connections: set[asyncio.Task[None]] = set()
        self._is_released = False
        self._releases = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    # Files to serve

    def serve(
        self,
        target: str,
        content: bytes,
        *faults: Fault,
        headers: Sequence[tuple[str, str]] = (),
        plan: Plan | None = None,
    ) -> str:
        """Serve an object under a target, with faults for its answers; return its URL."""
        chosen = plan if plan is not None else lambda _request: faults
        self._entries[target] = Entry(content, tuple(headers), chosen)
        return self.url + target

    def withdraw(self, target: str) -> None:
        """Forget an object: 404 from now on."""
        self._entries.pop(target, None)

    def find(self, target: str) -> Entry | None:
        """Return the entry of a target; subclasses serve other objects."""
        return self._entries.get(target) or self._entries.get(target.partition("?")[0])

    # The log

    def visits(self, target: str, method: str = "GET") -> list[Visit]:
        """Return the log's entries for one target."""
        return [v for v in list(self.log) if v.target == target and v.method == method]

    def gets(self, target: str) -> int:
        """Return the number of GET requests for one target."""
        return len(self.visits(target))

    def get_counts(self) -> Counter[str]:
        """Return the numbers of GET requests, by target."""
        return Counter(visit.target for visit in list(self.log) if visit.method == "GET")

    def wait_for(self, what: Callable[[], object], *, deadline: float = 30.0) -> None:
        """Wait until the log fulfils a condition. Raises AssertionError after `deadline` s."""
        with self._changed:
            if not self._changed.wait_for(what, deadline):
                seen = "\n".join(map(str, self.log[-10:])) or "nothing"
                raise AssertionError(f"the origin waited {deadline} s in vain; it saw\n{seen}")

    def wait_for_stall(self, target: str, *, deadline: float = 30.0) -> None:
        """Wait until an answer for this target stalls."""
        self.wait_for(lambda: any(v.stalled for v in self.visits(target)), deadline=deadline)

    def release(self) -> None:
        """End every wait, also future ones: stalls, silences, delays and slow rates."""
        self._releases += 1
        self._is_released = True

    def hold(self) -> None:
        """Make future waits last again, after `release`."""
        self._is_released = False

    # Running

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"{'http' if self._tls is None else 'https'}://{self._host}:{self.port}"

    def start(self) -> None:
        """Listen; returns when connections are accepted."""
        # A port of its own, also while it is stopped: no outgoing connection uses such a port.
        self.port = self.port or free_port()
        listener = socket.create_server((self._host, self.port), backlog=256)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener, ready), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise AssertionError("the origin did not start within 10 s")

    def stop(self) -> None:
        """Cut every connection and refuse new ones; harmless if stopped."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        if self._thread.is_alive():
            raise AssertionError("the origin did not stop within 10 s")
        self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        assert self._loop is not None
        try:
            self._loop.run_until_complete(self._main(listener, ready))
        finally:
            self._loop.close()

    async def _main(self, listener: socket.socket, ready: threading.Event) -> None:
        assert self._stop is not None
        server = await asyncio.start_server(
            self._accept, sock=listener, limit=1 << 20, ssl=self._tls
        )
        ready.set()
        await self._stop.wait()
        # It accepts nothing more, and answers accepted connections, before the server closes: the
        # server forgets sockets that it has accepted and not yet attached.
        asyncio.get_running_loop().remove_reader(listener)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        server.close()
        await self._end_connections()
        await server.wait_closed()

    async def _end_connections(self) -> None:
        """Cut every connection, and wait until the sockets are closed."""
        this = asyncio.current_task()
        while others := asyncio.all_tasks() - {this}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for _ in range(TURNS):
                await asyncio.sleep(0)  # aborted transports close their sockets

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()
            try:
                await writer.wait_closed()
            except asyncio.CancelledError:
                writer.transport.abort()  # the client need not read the written bytes any more
            except OSError:
                pass

    # One request

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Read and answer one request; return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request = self._parse(head)
        await reader.readexactly(int(request.headers.get("content-length", "0")))
        visit = Visit(request, peer=writer.get_extra_info("peername")[1])
        with self._changed:
            self.log.append(visit)
            self._changed.notify_all()
        reply = self._reply(request, visit)
        visit.status = reply.status
        try:
            going = await self._send(reply, request, visit, reader, writer)
        except (OSError, asyncio.CancelledError):
            self._note(visit, outcome="left")
            raise
        return going and request.headers.get("connection", "").lower() != "close"

    def _parse(self, head: str) -> Request:
        line, *fields = head[:-4].split("\r\n")
        method, target, _version = line.split(" ", 2)
        pairs = (text.partition(":") for text in fields)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self._numbers[method, target] += 1
        number = self._numbers[method, target]
        return Request(method=method, target=target, headers=headers, number=number)

    def _reply(self, request: Request, visit: Visit) -> Reply:
        entry = self.find(request.target)
        if entry is None:
            reply = Reply(status=404, content=b"not found\n", ranges="ignored")
        else:
            reply = Reply(status=200, content=entry.content, headers=list(entry.headers))
        visit.faults = (*self.plan(request), *(entry.plan(request) if entry else ()))
        for fault in visit.faults:
            fault.spoil(reply, request)
        return reply

    async def _send(
        self,
        reply: Reply,
        request: Request,
        visit: Visit,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if reply.delay:
            await self._wait(reply.delay, reader)
        if reply.silent:
            self._note(visit, outcome="silent", stalled=True)
            await self._wait(None, reader)
            return False
        if reply.raw is not None:
            writer.write(reply.raw)
            await self._cut(reply, visit, writer)
            return False
        body = render_head(reply, request, writer)
        visit.status = reply.status
        if request.method == "HEAD":
            await writer.drain()
            self._note(visit, outcome="done")
            return True
        await self._send_body(reply, body, visit, reader, writer)
        if reply.cut_at is not None and reply.cut_at <= len(body):
            await self._cut(reply, visit, writer)
            return False
        if reply.framing == "chunked":
            writer.write(b"0\r\n\r\n")
        writer.write(reply.after)
        await writer.drain()
        self._note(visit, outcome="done")
        return reply.framing != "close" and reply.claim is None

    async def _send_body(
        self,
        reply: Reply,
        body: bytes,
        visit: Visit,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        end = len(body) if reply.cut_at is None else min(reply.cut_at, len(body))
        piece = PIECE if reply.rate is None else max(1, min(PIECE, int(reply.rate / 20)))
        at = 0
        while True:
            if reply.stall_at == at:
                self._note(visit, stalled=True)
                await writer.drain()
                await self._wait(reply.stall_for, reader)
            if at >= end:
                return
            until = min(at + piece, end)
            if reply.stall_at is not None and at < reply.stall_at:
                until = min(until, reply.stall_at)
            data = body[at:until]
            if reply.framing == "chunked":
                data = b"%x\r\n%s\r\n" % (len(data), data)
            writer.write(data)
            await writer.drain()
            visit.sent = at = until
            if reply.rate is not None:
                await self._wait(piece / reply.rate, reader)

    async def _cut(self, reply: Reply, visit: Visit, writer: asyncio.StreamWriter) -> None:
        """End the connection: send the written bytes first, then FIN or a reset."""
        writer.transport.set_write_buffer_limits(high=0)
        await writer.drain()
        if reply.reset:
            # Give the client a moment to read: a reset discards unread bytes.
            await asyncio.sleep(0.05)
            connection = writer.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self._note(visit, outcome="cut")

    async def _wait(self, seconds: float | None, reader: asyncio.StreamReader) -> None:
        """Wait, unless released. Raises ConnectionResetError if the client leaves meanwhile."""
        until = time.monotonic() + (float("inf") if seconds is None else seconds)
        seen = self._releases
        while not self._is_released and self._releases == seen and time.monotonic() < until:
            if reader.at_eof() or reader.exception() is not None:
                raise ConnectionResetError("the client left")
            await asyncio.sleep(min(0.01, max(0.0, until - time.monotonic())))

    def _note(
        self, visit: Visit, *, outcome: Outcome | None = None, stalled: bool | None = None
    ) -> None:
        with self._changed:
            visit.outcome = outcome or visit.outcome
            visit.stalled = visit.stalled if stalled is None else stalled
            self._changed.notify_all()
