"""Narinfos: found, checked, signed, remembered and forgotten."""
