"""Heads of the lying origin's answers."""

from __future__ import annotations

import asyncio
import re

from tests.system.faults import Reply, Request

REASONS = {200: "OK", 206: "Partial Content", 302: "Found", 404: "Not Found", 416: "Bad Range"}


def render_head(reply: Reply, request: Request, writer: asyncio.StreamWriter) -> bytes:
    """Return the head of an answer and the body that follows it."""
    body, headers = reply.content, list(reply.headers)
    if reply.advertise_ranges and reply.status == 200:
        headers.append(("Accept-Ranges", "bytes"))
    if request.range is not None and reply.ranges != "ignored" and reply.status == 200:
        body = cut_range(reply, request.range, headers)
    if reply.framing == "length":
        claim = reply.claim if reply.claim is not None else len(body)
        headers.append(("Content-Length", str(claim)))
    elif reply.framing == "chunked":
        headers.append(("Transfer-Encoding", "chunked"))
    else:
        headers.append(("Connection", "close"))
    lines = [f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    return body


def cut_range(reply: Reply, asked: str, headers: list[tuple[str, str]]) -> bytes:
    """Turn the reply into a 206 or 416 for a single range; ignore anything else."""
    size = len(reply.content)
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if found is None or found[0] == "bytes=-":
        return reply.content
    if found[1]:
        start, stop = int(found[1]), int(found[2]) + 1 if found[2] else size
    else:
        start, stop = max(0, size - int(found[2])), size
    stop = min(stop, size)
    if start >= stop:
        reply.status = 416
        headers.append(("Content-Range", f"bytes */{size}"))
        return b""
    if reply.ranges == "shifted":
        start = max(0, start - 1)
    reply.status = 206
    headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
    return reply.content[start:stop]
