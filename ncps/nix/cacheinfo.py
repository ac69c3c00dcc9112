"""nix-cache-info: the three lines by which a binary cache introduces itself."""

from __future__ import annotations

from typing import Final, Self

from attrs import frozen

from ncps.errors import Malformed
from ncps.nix.storepath import STORE_DIR

MAX_SIZE: Final = 64 * 1024
"""The longest text that is read, in bytes."""


@frozen(kw_only=True)
class CacheInfo:
    """The facts that a cache tells of itself.

    :param store_dir: the store it serves; paths of another store are of no use here.
    :param want_mass_query: whether clients may ask it for thousands of paths at once.
    :param priority: lower is asked first; None where it says nothing, which clients take for 0.
    """

    store_dir: str = STORE_DIR
    want_mass_query: bool = False
    priority: int | None = None

    def __attrs_post_init__(self) -> None:
        text = self.store_dir
        if not (text.startswith("/") and text.isascii() and text.isprintable()):
            raise Malformed(f"StoreDir is not an absolute path: {self.store_dir[:64]!r}")

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read it in any order, with any spacing, line ends and further keys.

        Raises Malformed if nothing in it looks like a field, as in an HTML page, or if Priority is
        no number. A missing StoreDir is taken for the usual one; the first of two lines counts.
        """
        if len(text) > MAX_SIZE or text.lstrip()[:1] == b"<":
            raise Malformed("not a nix-cache-info")
        fields: dict[str, str] = {}
        for line in text.decode("latin-1").split("\n"):
            key, colon, value = line.partition(":")
            key = key.strip()
            if colon and key and " " not in key:
                fields.setdefault(key, value.strip())
        if not fields:
            raise Malformed("not a nix-cache-info: no line has the form Key: value")
        return cls(
            store_dir=fields.get("StoreDir") or STORE_DIR,
            want_mass_query=fields.get("WantMassQuery") == "1",
            priority=_priority(fields.get("Priority")),
        )

    def render(self) -> bytes:
        """Write the text, with a final LF."""
        lines = [f"StoreDir: {self.store_dir}", f"WantMassQuery: {int(self.want_mass_query)}"]
        if self.priority is not None:
            lines.append(f"Priority: {self.priority}")
        return ("\n".join(lines) + "\n").encode()


def _priority(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.removeprefix("-").isdigit()) or len(text) > 10:
        raise Malformed(f"Priority is not a number: {text[:32]!r}")
    return int(text)
