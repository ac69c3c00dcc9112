"""Adapters of the upstream port: binary caches over HTTP."""
