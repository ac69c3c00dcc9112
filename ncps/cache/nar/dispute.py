"""Dispute: what upstreams say of a file's size against the size it was first said to have.

A Content-Length is the word of one upstream, like the FileSize of a narinfo. The upstream that has
not kept it may have lied, and so may the next one, which says another size. Two that agree against
one are believed. One that says that all of the file has come is believed if the NAR inside is
right.
"""

from __future__ import annotations

BELIEVED = 2


class Dispute:
    """Who contradicts the first answer's size, and with which one."""

    def __init__(self) -> None:
        self._said: dict[int, set[str]] = {}

    @property
    def is_refuted(self) -> bool:
        """Whether two agree on another size."""
        return any(len(names) >= BELIEVED for names in self._said.values())

    def is_worth_a_look(self, name: str, size: int, length: int) -> bool:
        """Note that an upstream says another size; whether the bytes there are may be the file.

        :param length: of what has come.
        """
        self._said.setdefault(size, set()).add(name)
        return size == length or self.is_refuted
