"""Leases and notices over Redis."""
