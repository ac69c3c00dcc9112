"""Bad requests, and the status of each."""

from __future__ import annotations

from attrs import frozen

from tests.system.caches import to_base32

GOOD = "0" * 32
NAME = to_base32(bytes(32))

#: Paths without a resource: 404, and no request to an upstream.
NOT_FOUND = (
    f"/{GOOD[1:]}.narinfo",
    f"/{GOOD}0.narinfo",
    f"/{GOOD[1:]}A.narinfo",
    *(f"/{GOOD[1:]}{letter}.narinfo" for letter in "eout"),
    f"/{GOOD}.narinfo/",
    f"/{GOOD}.narinfo%00",
    f"/%30{GOOD[1:]}.narinfo",
    f"//{GOOD}.narinfo",
    f"/x/{GOOD}.narinfo",
    f"/../{GOOD}.narinfo",
    "/nar/../../../../etc/passwd",
    "/nar/..%2f..%2fetc%2fpasswd",
    f"/nar/{NAME[1:]}.nar",
    f"/nar/{NAME}0.nar.xz",
    f"/nar/{NAME.upper()}A.nar",
    f"/nar/{GOOD[1:]}-{NAME}.nar",
    f"/nar/{'A' * 64}.nar",
    f"/nar/{NAME}.nar.xz/x",
    f"/nar/{NAME}",
    "/nar/",
    "/nar",
    "/metrics/",
    f"/{'a' * 10_000}",
    f"/{GOOD[1:]}.ls",
    f"/log/{GOOD[1:]}-x.drv",
    "/favicon.ico",
)

#: NARs in an unknown compression: 400.
UNKNOWN_EXTENSIONS = tuple(f"/nar/{NAME}.nar.{each}" for each in ("gz", "zip", "xzz", "XZ"))

METHODS = ("POST", "PUT", "DELETE", "PATCH", "BREW")

_END = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_MANY = b"".join(b"X-%d: y\r\n" % number for number in range(1000))


@frozen
class Raw:
    """Bytes that are not a proper request.

    :param statuses: possible answers; 0: none, the connection ends.
    """

    data: bytes
    statuses: frozenset[int]


RAW = tuple(
    Raw(data, frozenset(statuses))
    for data, statuses in (
        (b"GET /\x00" + _END, {400, 404}),
        (b"GET /%00" + _END, {404}),
        (b"GET /\xff\xfe" + _END, {400, 404}),
        (b"GET /" + b"a" * 100_000 + _END, {400, 404, 414, 431}),
        (b"GET / HTTP/1.1\r\n" + _MANY + b"\r\n", {400, 431}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", {400, 431}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", {0, 400, 408}),
        (b"HELO example.org\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX", {408}),
        (b"GET / HTTP/1.1\r\n", {408}),
        (b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", {404}),
        (b"PUT /pubkey HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", {405}),
    )
)

#: A request after one with two lengths: it gets no answer.
SMUGGLED = (
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /pubkey HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
)


def ranges(size: int) -> dict[str, int]:
    """Return ranges of a NAR of this size that are invalid or ignored, and their status."""
    return {
        f"bytes={size}-": 416,
        f"bytes={10 * size}-{11 * size}": 416,
        "bytes=-0": 416,
        "bytes=5-2": 200,
        "bytes=a-b": 200,
        "bytes=-": 200,
        "bytes=0-1,3-4": 200,
        "lines=0-1": 200,
        f"bytes={2**70}-": 200,
    }
