"""Fetches before a client asks."""
