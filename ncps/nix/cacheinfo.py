"""nix-cache-info: the three lines in which a binary cache describes itself."""

from __future__ import annotations

from typing import Final, Self

from attrs import frozen

from ncps.errors import Malformed
from ncps.nix.storepath import STORE_DIR

MAX_SIZE: Final = 64 * 1024
"""The longest text that is read, in bytes."""


@frozen(kw_only=True)
class CacheInfo:
    """The facts in a cache's nix-cache-info.

    :param store_dir: the store of its paths; ncps cannot use paths of another store.
    :param want_mass_query: whether clients may ask it for thousands of paths together.
    :param priority: clients ask the cache with the lowest one first; None (not given) counts as 0.
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
        """Read the lines in any order, with any spacing, line ends and further keys.

        Raises Malformed if no line is a field, as in an HTML page, or if Priority is no number. A
        missing StoreDir means the usual one. If a key appears twice, its first line counts.
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
