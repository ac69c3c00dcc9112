"""The keys of an issuer, and checking signatures by them."""

from __future__ import annotations

import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as new_ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as new_rsa
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.oidc.jwt import read_token
from ncps.auth.oidc.keys import ALGORITHMS, MAX_KEYS, read_keys
from ncps.errors import Corrupt
from tests.fakes.issuer import keys, private_key, public_jwk, sign


class SignatureTests(SynchronousTestCase):
    def test_each_kind_of_key(self) -> None:
        """RSA, elliptic curves, and Edwards curves."""
        kinds = ("RS256", "ES256", "EdDSA")
        found = read_keys(keys(*(public_jwk(kind, f"k-{kind}") for kind in kinds)))
        for kind in kinds:
            right = read_token(sign({"sub": "x"}, name=f"k-{kind}", algorithm=kind))
            key = found.find(f"k-{kind}", kind)
            assert key is not None
            self.assertTrue(key.verify(right), kind)
            wrong = sign({"sub": "x"}, name="another", algorithm=kind)
            forged = f"{right.text.rpartition('.')[0]}.{wrong.rpartition('.')[2]}"
            self.assertFalse(key.verify(read_token(forged)), kind)

    def test_a_key_without_an_algorithm_has_all_that_fit(self) -> None:
        """An RSA key may be used with PS512 as well, unless its issuer says otherwise."""
        described = public_jwk("RS256", "k")
        del described["alg"]
        found = read_keys(keys(described))
        for algorithm in ("RS512", "PS256"):
            text = jwt.encode({"a": 1}, private_key("RS256", "k"), algorithm, headers={"kid": "k"})
            key = found.find("k", algorithm)
            assert key is not None
            self.assertTrue(key.verify(read_token(text)))
        self.assertIsNone(found.find("k", "ES256"))
        self.assertIsNone(read_keys(keys(public_jwk("RS256", "k"))).find("k", "PS256"))

    def test_no_secret_and_no_signature_ever_counts(self) -> None:
        """`none` and HS256 are not among the algorithms, whatever the keys are."""
        found = read_keys(keys(public_jwk("RS256", "k")))
        for algorithm in ("none", "None", "HS256", "HS512", "", "rs256", "ES256K"):
            self.assertNotIn(algorithm, ALGORITHMS)
            self.assertIsNone(found.find("k", algorithm))


class DocumentTests(SynchronousTestCase):
    def test_a_token_without_a_key_id(self) -> None:
        """It is signed by the only key, if only one fits."""
        one = read_keys(keys(public_jwk("RS256", "a"), public_jwk("ES256", "b")))
        found = one.find(None, "RS256")
        assert found is not None
        self.assertEqual("a", found.id)
        two = read_keys(keys(public_jwk("RS256", "a"), public_jwk("RS256", "b")))
        self.assertIsNone(two.find(None, "RS256"))
        self.assertIsNone(two.find("", "RS256"))

    def test_keys_of_one_name_are_told_apart_by_their_kind(self) -> None:
        """Some issuers number their keys for each kind."""
        both = read_keys(keys(public_jwk("RS256", "1"), public_jwk("ES256", "1")))
        for algorithm in ("RS256", "ES256"):
            found = both.find("1", algorithm)
            assert found is not None
            self.assertTrue(found.verify(read_token(sign({}, name="1", algorithm=algorithm))))

    def test_keys_of_no_use_are_passed_over(self) -> None:
        """For encryption, secret, private, weak, huge, on odd curves, broken: others count."""
        rsa: dict[str, Any] = public_jwk("RS256", "k")
        ec: dict[str, Any] = public_jwk("ES256", "k")
        weak: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(
            new_rsa(65537, 1024).public_key(), as_dict=True
        )
        odd = jwt.algorithms.ECAlgorithm.to_jwk(new_ec(SECP256K1()).public_key(), as_dict=True)
        useless: list[Any] = [
            {**rsa, "use": "enc"},
            {**rsa, "key_ops": ["encrypt"]},
            {**rsa, "key_ops": "verify"},
            {**rsa, "alg": "RSA-OAEP"},
            {**rsa, "alg": "HS256"},
            {**rsa, "alg": "none"},
            {**rsa, "alg": "ES256"},
            {**rsa, "d": "x"},
            {**rsa, "kid": 1},
            {**rsa, "kid": "k" * 10_000},
            {**rsa, "kty": "EC"},
            {**rsa, "kty": ["RSA"]},
            {**rsa, "n": "A"},
            {**rsa, "n": "_" * 100_000},
            {**rsa, "e": "_" * 1000},
            {**rsa, "n": None},
            {**rsa, "n": "*"},
            {**rsa, "e": "AA"},
            {**ec, "x": "AA"},
            {**ec, "x": ec["y"]},
            {**ec, "crv": "P-384"},
            {**ec, "crv": {}},
            {"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "HS256"},
            {"kty": "OKP", "crv": "X25519", "x": "AA", "kid": "k"},
            {"kty": "RSA"},
            weak,
            odd,
            {},
            None,
            "key",
            [],
        ]
        found = read_keys(keys(*useless, public_jwk("EdDSA", "right")))
        self.assertEqual((1, len(useless)), (len(found), found.ignored))
        self.assertIsNotNone(found.find("right", "EdDSA"))

    def test_documents_of_no_use(self) -> None:
        """Not JSON, not a list, no key, too many keys."""
        key = public_jwk("EdDSA", "k")
        for data in (
            b"",
            b"<!doctype html>",
            b"[]",
            b"{}",
            b'{"keys": {}}',
            b'{"keys": []}',
            b'{"keys": [], "keys": []}',
            b'{"keys": [1]}',
            b"[" * 100_000,
            keys({**key, "use": "enc"}),
            keys(*[key] * (MAX_KEYS + 1)),
            keys(*[key] * 10_000),
            json.dumps({"keys": [key]}).encode("utf-16"),
        ):
            with self.assertRaises(Corrupt, msg=repr(data[:60])):
                read_keys(data)
