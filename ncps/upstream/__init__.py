"""Adapters of the upstream port: binary caches reached over HTTP."""
