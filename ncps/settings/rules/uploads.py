"""The rule of the settings of uploads."""

from __future__ import annotations

from ncps.settings.draft import Draft


def decide_uploads(draft: Draft) -> None:
    """Check that there is a key if uploads must have a trusted signature."""
    values = draft.values
    is_required = values.get("cache.require_trusted_signature")
    if is_required and values.get("cache.trusted_upload_keys") == ():
        draft.problems.append(
            "cache-require-trusted-signature needs cache-trusted-upload-key, as NAME:BASE64:"
            " without a key no upload could be accepted"
        )
