"""Sidecars: the text kept beside each published NAR, from which a lost catalog is rebuilt (D13).

A sidecar is the upstream's narinfo, signatures and original URL included, and one line of our
own that names the upstream. Nix ignores lines it does not know, so the text is a narinfo.
"""

from __future__ import annotations

from attrs import evolve

from ncps.nix.narinfo import NarInfo
from ncps.ports import NarInfoEntry

_LINE = b"NcpsUpstream: "


def render(entry: NarInfoEntry, own_name: str) -> bytes:
    """Text of an entry's sidecar.

    :param own_name: signatures of this key name are ours and left out, as is that of the key by
        which the entry was signed.
    """
    ours = {own_name, entry.signed_by.partition(":")[0]}
    theirs = tuple(s for s in entry.narinfo.signatures if s.name not in ours)
    narinfo = evolve(entry.narinfo, url=entry.upstream_url or entry.narinfo.url, signatures=theirs)
    return narinfo.render() + _LINE + entry.upstream.encode() + b"\n"


def parse(text: bytes) -> tuple[NarInfo, str]:
    """Return the upstream's narinfo and its base URL, empty if the text does not name one.

    :raises Malformed: if it is no narinfo.
    """
    upstream = ""
    for line in text.splitlines():
        if line.startswith(_LINE):
            upstream = line[len(_LINE) :].decode("utf-8", "replace").strip()
    return NarInfo.parse(text), upstream
