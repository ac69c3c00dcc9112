"""Tokens are parsed strictly; any input is a token or Malformed."""

from __future__ import annotations

import json
import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.oidc.jwt import (
    LONGEST,
    LONGEST_KEY_ID,
    UnverifiedToken,
    looks_like_token,
    read_token,
    values_of,
)
from ncps.errors import Malformed
from tests.fakes.issuer import encoded, of_github, sign

HEAD = {"alg": "RS256", "typ": "JWT", "kid": "key-1"}


def token(head: object = HEAD, claims: object = {}, signature: object = b"x") -> str:
    return f"{encoded(head)}.{encoded(claims)}.{encoded(signature)}"


def with_claims(**claims: object) -> UnverifiedToken:
    return read_token(token(claims=claims))


class ReadTests(SynchronousTestCase):
    def refused(self, text: str) -> str:
        with self.assertRaises(Malformed) as caught:
            read_token(text)
        return str(caught.exception)

    def test_a_token_of_github(self) -> None:
        """Algorithm, key and claims are those of the token."""
        text = sign(of_github(1000.0))
        found = read_token(text)
        self.assertTrue(looks_like_token(text))
        self.assertEqual(("RS256", "key-1"), (found.algorithm, found.key_id))
        self.assertEqual(1300.0, found.time("exp"))
        self.assertEqual("https://token.actions.githubusercontent.com", found.issuer)
        self.assertNotIn(text[:40], repr(found))

    def test_other_secrets_are_no_tokens(self) -> None:
        """They belong to other sources."""
        for text in ("", "ncps_abc", "a.b.c", "ey.b", "eyJ", "eyJ.a.b.c.d"):
            self.assertFalse(looks_like_token(text), text)

    def test_a_token_with_two_meanings_is_none(self) -> None:
        """Two parsers would see two tokens."""
        for head, claims in (
            ('{"alg": "RS256", "alg": "none"}', "{}"),
            (HEAD, '{"sub": "a", "sub": "b"}'),
            (HEAD, '{"a": {"b": 1, "b": 2}}'),
            (HEAD, '{"exp": NaN}'),
            (HEAD, '{"exp": Infinity}'),
            (HEAD, "{} {}"),
            (HEAD, '{"a": 1,}'),
            (HEAD, "[]"),
            (HEAD, '"x"'),
            (HEAD, b"\xff\xfe{\x00}\x00"),
            (HEAD, "\ufeff{}"),
            (HEAD, b'{"a": "\xff"}'),
            (HEAD, f'{{"exp": {"9" * 5000}}}'),
            ({}, "{}"),
            ({"alg": None}, "{}"),
            ({"alg": ["RS256"]}, "{}"),
            ({**HEAD, "kid": 7}, "{}"),
            ({**HEAD, "kid": "k" * (LONGEST_KEY_ID + 1)}, "{}"),
            ({**HEAD, "crit": ["b64"], "b64": False}, "{}"),
            ({**HEAD, "crit": []}, "{}"),
        ):
            self.refused(token(head, claims))

    def test_deep_and_long_ones(self) -> None:
        """The sender controls neither the stack nor the memory of the parser."""
        self.refused(token(HEAD, "[" * 5000 + "]" * 5000))
        self.refused(token(HEAD, '{"a":' * 1800 + "1" + "}" * 1800))
        self.assertIn(str(LONGEST), self.refused("eyJ" + "x" * (1 << 20) + ".y.z"))

    def test_parts_are_base64_of_urls(self) -> None:
        """Other characters are not ignored."""
        whole = token()
        head, claims, signature = whole.split(".")
        for text in (
            f"{head}.{claims}.",
            f"{head}..{signature}",
            f"{head}.{claims}.{signature}=",
            f"{head}.{claims}.{signature}\n",
            f"{head} .{claims}.{signature}",
            f"{head}.{claims}+.{signature}",
            f"{head}.{claims}.{signature}.x",
            f"{head}.{claims}",
            "....",
        ):
            self.refused(text)

    def test_a_key_id_is_only_a_name(self) -> None:
        """A key id of any form is only compared."""
        for key_id in ("../../etc/passwd", "' OR 1=1 --", "http://evil.example", "\0", ""):
            self.assertEqual(key_id, read_token(token({**HEAD, "kid": key_id})).key_id)

    def test_any_change_is_a_token_or_malformed(self) -> None:
        """From a seed: bytes changed, cut, doubled and inserted never cause another error."""
        chance = random.Random(20_13)
        whole = sign(of_github(1000.0))
        signs = 'eyJ.{}[]"\\\x00\n=-_AZaz09\ud800'
        read = 0
        for _ in range(3000):
            text = whole
            for _ in range(chance.randint(1, 4)):
                at, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
                put = "".join(chance.choices(signs, k=chance.randint(0, 3)))
                text = chance.choice((text[:at] + put + text[at:], text[:at] + text[end:] + put))
            try:
                found = read_token(text)
            except Malformed:
                continue
            read += 1
            self.assertIsInstance(found.issuer, str)
        self.assertGreater(read, 10)

    def test_any_json_is_claims_or_malformed(self) -> None:
        """From a seed: objects with values of any kind are parsed without another error."""
        chance = random.Random(20_14)

        def some(depth: int) -> Any:
            kinds = ["x", "", 0, -1, 1e308, 10**30, True, None, "\ud800", [], {}]
            if depth == 0 or chance.random() < 0.5:
                return chance.choice(kinds)
            if chance.random() < 0.5:
                return [some(depth - 1) for _ in range(chance.randint(0, 4))]
            return {chance.choice(("iss", "aud", "exp", "a")): some(depth - 1) for _ in range(3)}

        for _ in range(2000):
            claims = {name: some(3) for name in ("iss", "aud", "exp", "sub")}
            found = read_token(token(claims=json.dumps(claims)))
            self.assertTrue(all(isinstance(value, str) for value in found.audiences))
            self.assertIsInstance(found.issuer, str)
            try:
                found.time("exp")
            except Malformed as error:
                self.assertIn("exp", str(error))


class ClaimTests(SynchronousTestCase):
    def test_times(self) -> None:
        """Integers and fractions; no texts, no booleans, no absurdly large numbers."""
        self.assertEqual(5.5, with_claims(exp=5.5).time("exp"))
        self.assertIsNone(with_claims().time("exp"))
        wrongs: tuple[object, ...] = ("5", True, [5], {}, 1e300, -(10**20))
        for wrong in wrongs:
            with self.assertRaises(Malformed):
                with_claims(exp=wrong).time("exp")

    def test_audiences(self) -> None:
        """One text, or several."""
        self.assertEqual(("a",), with_claims(aud="a").audiences)
        self.assertEqual(("a", "b"), with_claims(aud=["a", 1, "b"]).audiences)
        self.assertEqual((), with_claims(aud={"a": 1}).audiences)
        self.assertEqual((), with_claims().audiences)

    def test_values(self) -> None:
        """Rules see texts; a value without texts matches no rule."""
        for claim, expected in (
            ("x", ("x",)),
            (True, ("true",)),
            (False, ("false",)),
            (22, ("22",)),
            (["a", "b"], ("a", "b")),
            (None, ()),
            (1.5, ()),
            ({"a": "b"}, ()),
            (10**30, ()),
        ):
            self.assertEqual(expected, values_of(claim))
