"""Fetches ahead what a client that walks a closure will ask for next (D6)."""
