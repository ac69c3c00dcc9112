"""The signing key and the judge of narinfos."""

from __future__ import annotations

from twisted.logger import Logger

from ncps.aio.threads import Threads
from ncps.cache.narinfo.verify import NarInfoVerifier
from ncps.errors import Malformed, Refused
from ncps.nix.keys import PublicKey, SecretKey
from ncps.settings.schema.tree import Settings

_log = Logger()


def vetting(settings: Settings, key: SecretKey, workers: Threads | None = None) -> NarInfoVerifier:
    """Make the judge of narinfos.

    :param workers: for narinfos with many references.
    """
    trusted = tuple(PublicKey.parse(text) for text in settings.cache.upstream.public_keys)
    if not trusted:
        _log.warn(
            "no public key is configured: narinfos are passed on unverified and are not signed"
        )
    own = key if settings.cache.sign_narinfo else None
    return NarInfoVerifier(trusted=trusted, own=own, name=key.public.name, workers=workers)


def imported_key(settings: Settings) -> str | None:
    """Text of the key file, if one is named. Refused."""
    path = settings.cache.secret_key_path
    if path is None:
        return None
    try:
        text = path.read_text()
        SecretKey.parse(text)
    except OSError as error:
        raise Refused(f"cache-secret-key-path: {path} cannot be read: {error.strerror}") from error
    except (Malformed, UnicodeDecodeError):
        raise Refused(
            f"cache-secret-key-path: {path} is not a secret key of Nix (name:base64, 64 bytes)"
        ) from None
    return text
