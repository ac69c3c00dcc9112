"""Settings carried from one process to another of the same program, secrets and all."""

from __future__ import annotations

import copyreg
import io
import pickle
from types import MappingProxyType
from typing import Any

from ncps.settings.schema.tree import Settings


def _wrap(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


def _unwrapped(mapping: MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    return _wrap, (dict(mapping),)


class _Pickler(pickle.Pickler):
    """A pickler that can also pickle read-only dictionaries."""

    dispatch_table = copyreg.dispatch_table | {MappingProxyType: _unwrapped}


def pack(settings: Settings) -> bytes:
    """Return settings as bytes, with all secrets: put them only where nobody else can read."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(settings)
    return buffer.getvalue()


def unpack(data: bytes) -> Settings:
    """Read the bytes that `pack` wrote; only from a place where nobody else can write."""
    found = pickle.loads(data)  # noqa: S301 - see above
    assert isinstance(found, Settings)
    return found
