"""Extras: logs, listings, links to debug information, and the symbols themselves."""
