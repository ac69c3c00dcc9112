"""Narinfos: finding, checking, signing, remembering and forgetting them."""
