"""Clients of this cache: their credentials, and the scopes that the credentials give."""
