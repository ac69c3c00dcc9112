from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Malformed
from ncps.nix.keyring import MAX_FORMER, FormerKey, next_name, parse_former, render_former
from ncps.nix.keys import SecretKey

AT = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def former(name: str = "cache.example.org-1") -> FormerKey:
    return FormerKey(key=SecretKey.generate(name), since=AT, until=AT + timedelta(days=30))


class KeyringTests(SynchronousTestCase):
    def test_written_and_read(self) -> None:
        """A written list is read as the same list, with its times."""
        keys = [former(f"k-{number}") for number in range(MAX_FORMER)]
        found = parse_former(render_former(keys))
        self.assertEqual(
            [(key.public, key.since, key.until) for key in keys],
            [(key.public, key.since, key.until) for key in found],
        )
        self.assertEqual((), parse_former(b""))

    def test_other_zones(self) -> None:
        """A time in another zone is the same moment."""
        line = render_former([former()]).decode().replace("12:00:00+00:00", "14:00:00+02:00")
        (found,) = parse_former(line.encode())
        self.assertEqual(AT, found.since)
        self.assertEqual(timezone(timedelta(hours=2)), found.since.tzinfo)

    def test_damage(self) -> None:
        """Damaged lines are Malformed, and the message shows no part of the key."""
        good = render_former([former()])
        secret = good.decode().split(":")[-1].strip()
        for text in (
            b"x",
            b"\xff\n",
            b"\n",
            good[:-10],
            good[30:],
            good.replace(b"+00:00", b""),
            good.replace(b"2026-11", b"2026-13"),
            good * (MAX_FORMER + 1),
        ):
            error = self.assertRaises(Malformed, parse_former, text)
            self.assertNotIn(secret[:20], str(error))

    def test_no_secret_is_shown(self) -> None:
        """Neither `repr` nor `str` shows the secret."""
        key = former()
        for shown in (repr(key), str(key)):
            self.assertNotIn(key.export().split(":")[-1][:20], shown)

    def test_names_follow_each_other(self) -> None:
        """Each next name is new, because Nix trusts one key for each name."""
        for name, following in (
            ("cache.example.org", "cache.example.org-2"),
            ("cache.example.org-1", "cache.example.org-2"),
            ("cache.example.org-9", "cache.example.org-10"),
            ("my-box", "my-box-2"),
            ("a-1234567", "a-1234567-2"),
        ):
            self.assertEqual(following, next_name(name))
