"""An issuer of tokens: its keys, its documents, and the tokens of GitHub and GitLab."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as new_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as new_rsa

AUDIENCE: Final = "https://cache.example.org"
GITHUB: Final = "https://token.actions.githubusercontent.com"
GITLAB: Final = "https://gitlab.example.org"

_ALGORITHMS: Final[dict[str, Any]] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


@functools.cache
def private_key(algorithm: str, name: str = "") -> Any:
    """Return a private key, the same for the same name: making one of RSA takes time."""
    if algorithm == "RS256":
        return new_rsa(65537, 2048)
    return new_ec(SECP256R1()) if algorithm == "ES256" else Ed25519PrivateKey.generate()


def public_jwk(algorithm: str, name: str = "", **more: object) -> dict[str, Any]:
    """Describe the public half of a key as issuers do."""
    public = private_key(algorithm, name).public_key()
    described: dict[str, Any] = _ALGORITHMS[algorithm].to_jwk(public, as_dict=True)
    return {**described, "kid": name, "use": "sig", "alg": algorithm, **more}


def sign(
    claims: Mapping[str, object],
    *,
    name: str = "key-1",
    algorithm: str = "RS256",
    head: Mapping[str, object] | None = None,
) -> str:
    """Return a token, signed by the key of this name."""
    return jwt.PyJWS().encode(
        json.dumps(dict(claims)).encode(),
        private_key(algorithm, name),
        algorithm=algorithm,
        headers={"kid": name, **(head or {})},
    )


def encoded(part: object) -> str:
    """Return a part of a token: JSON in base64; bytes and texts as they are."""
    if not isinstance(part, bytes | str):
        part = json.dumps(part)
    data = part.encode() if isinstance(part, str) else part
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def sign_text(head: object, claims: object, *, name: str = "key-1") -> str:
    """Return a token with RS256 of any two texts, which need not be JSON."""
    signed = f"{encoded(head)}.{encoded(claims)}"
    algorithm = jwt.get_algorithm_by_name("RS256")
    signature = algorithm.sign(signed.encode(), private_key("RS256", name))
    return f"{signed}.{encoded(signature)}"


def of_github(now: float, **changes: object) -> dict[str, object]:
    """Claims of a job of GitHub Actions, in the shape of its documentation."""
    return {
        "iss": GITHUB,
        "aud": AUDIENCE,
        "sub": "repo:octo-org/octo-repo:ref:refs/heads/main",
        "jti": "9f3e7c1a-5d0e-4b8f-a2b6-2f4f0b8d9c11",
        "repository": "octo-org/octo-repo",
        "repository_owner": "octo-org",
        "repository_id": "74",
        "repository_visibility": "private",
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "ref_protected": "true",
        "event_name": "push",
        "workflow": "build",
        "job_workflow_ref": "octo-org/octo-repo/.github/workflows/b.yml@refs/heads/main",
        "runner_environment": "github-hosted",
        "iat": int(now),
        "nbf": int(now) - 600,
        "exp": int(now) + 300,
        **changes,
    }


def of_gitlab(now: float, **changes: object) -> dict[str, object]:
    """Claims of a job of GitLab CI, in the shape of its documentation."""
    return {
        "iss": GITLAB,
        "aud": [AUDIENCE],
        "sub": "project_path:group/sub/project:ref_type:branch:ref:main",
        "namespace_path": "group/sub",
        "project_path": "group/sub/project",
        "project_id": "22",
        "ref": "main",
        "ref_type": "branch",
        "ref_protected": "true",
        "pipeline_source": "push",
        "user_login": "sample-user",
        "groups_direct": ["group/sub", "other"],
        "iat": int(now),
        "nbf": int(now) - 5,
        "exp": int(now) + 3600,
        **changes,
    }


def discovery(issuer: str, keys_url: str = "") -> bytes:
    """Return the document of an issuer."""
    return json.dumps(
        {
            "issuer": issuer,
            "jwks_uri": keys_url or f"{issuer}/keys",
            "response_types_supported": ["id_token"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
    ).encode()


def keys(*described: Mapping[str, object]) -> bytes:
    """Return the document of keys."""
    return json.dumps({"keys": list(described)}).encode()
