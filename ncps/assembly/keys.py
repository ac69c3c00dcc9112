"""The signing key and the verifier of narinfos."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from twisted.logger import Logger

from ncps.aio.threads import Threads
from ncps.cache.narinfo.verify import NarInfoVerifier, TrustedKeys
from ncps.cache.upkeep.identity import CacheIdentity
from ncps.errors import Malformed, Refused
from ncps.nix.keys import PublicKey, SecretKey
from ncps.settings.schema.tree import Settings
from ncps.settings.showing import existing

_LARGEST: Final = 64 * 1024
"""Bytes of a key file that are read, at most."""
_log = Logger()


def narinfo_verifier(
    settings: Settings, identity: CacheIdentity, workers: Threads | None = None
) -> NarInfoVerifier:
    """Make the verifier of narinfos.

    :param workers: threads for narinfos with many references.
    """
    trusted = TrustedKeys(trusted_keys(settings))
    if not trusted:
        _log.warn(
            "no public key is configured: narinfos are passed on unverified and are not signed;"
            " give the key of each upstream by cache-upstream-public-key, as NAME:BASE64, like the"
            " trusted-public-keys of nix.conf"
        )
    return NarInfoVerifier(
        trusted=trusted,
        own=identity.key if settings.cache.sign_narinfo else None,
        name=identity.key.public.name,
        workers=workers,
        former=identity.former,
    )


def trusted_keys(settings: Settings) -> tuple[PublicKey, ...]:
    """Return the trusted keys of upstreams' narinfos."""
    return tuple(PublicKey.parse(text) for text in settings.cache.upstream.public_keys)


def imported_key(settings: Settings) -> str | None:
    """Return the key in the key file of the settings, if any. Raises Refused if it is wrong."""
    path = settings.cache.secret_key_path
    if path is None:
        return None
    return key_in(path, "cache-secret-key-path: ").export()


def key_in(path: Path, what: str = "") -> SecretKey:
    """Read the secret key in a file. Raises Refused if it cannot be used.

    :param what: text before the name of the file in the message.
    """
    try:
        with path.open("rb") as file:
            return SecretKey.parse(file.read(_LARGEST).decode("ascii"))
    except OSError as error:
        raise Refused(f"{what}{existing(path)} cannot be read: {error.strerror}") from error
    except (Malformed, UnicodeDecodeError):
        raise Refused(f"{what}{path} is not a secret key of Nix (name:base64, 64 bytes)") from None
