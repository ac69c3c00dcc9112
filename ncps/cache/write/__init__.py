"""Uploads: NARs and narinfos that clients send, checked before they count."""
