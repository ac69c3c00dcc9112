"""The rules of the settings of the storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ncps.settings.draft import Draft

_AT: Final = "cache.storage.s3."
_NEEDED_TOGETHER: Final = ("access_key_id", "secret_access_key")


def decide_storage(draft: Draft) -> None:
    """Choose between directory and bucket, and set the directory for unfinished downloads."""
    values, problems = draft.values, draft.problems
    if f"{_AT}bucket" not in values:
        return  # it is not valid, and the problem is reported already
    if not values[f"{_AT}bucket"]:
        if values.get("cache.storage.local", "") is None:
            problems.append("cache-storage-local should be a path, unless there is a bucket")
        for key in draft.origins:
            if key.startswith(_AT) and draft.is_given(key) and _says_something(values, key):
                flag = key.replace(".", "-")
                problems.append(f"{flag} needs cache-storage-s3-bucket: which bucket is meant?")
                break
        return
    if draft.is_given("cache.storage.local") and values.get("cache.storage.local") is not None:
        problems.append(
            "cache-storage-local and cache-storage-s3-bucket: give one of them. NARs are kept"
            " either in a directory or in a bucket (unfinished ones in cache-temp-path)"
        )
    values["cache.storage.local"] = None
    if values.get("cache.temp_path", "") is None:
        values["cache.temp_path"] = draft.surroundings.state_dir / "spool"
    _check_credentials(values, problems)
    encryption = str(values.get(f"{_AT}server_side_encryption"))
    if values.get(f"{_AT}kms_key_id") and not encryption.startswith("aws:kms"):
        problems.append(
            "cache-storage-s3-kms-key-id needs cache-storage-s3-server-side-encryption=aws:kms"
        )


def _check_credentials(values: Mapping[str, object], problems: list[str]) -> None:
    given = [name for name in _NEEDED_TOGETHER if values.get(_AT + name, "unknown")]
    if len(given) == 1:
        problems.append(
            "cache-storage-s3-access-key-id and cache-storage-s3-secret-access-key: give both, or"
            " neither to use what AWS's own tools would (environment, profile, role)"
        )
    if values.get(f"{_AT}session_token") and not given:
        problems.append("cache-storage-s3-session-token needs cache-storage-s3-access-key-id")


def _says_something(values: Mapping[str, object], key: str) -> bool:
    """Whether a key has a value that has an effect: a template may leave all keys empty."""
    return values.get(key.replace("-", "_")) not in {None, "", False}
