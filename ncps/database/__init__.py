"""Adapters of the catalog port: SQL beside its use."""
