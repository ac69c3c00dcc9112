"""Clients of this cache: their credentials, and the scopes that these give."""
