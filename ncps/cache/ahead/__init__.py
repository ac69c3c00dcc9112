"""Fetching ahead: the narinfos and NARs that a client will probably ask for next (D6)."""
