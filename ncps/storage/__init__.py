"""Adapters of the storage ports: NAR bytes, narinfos and small secrets."""
