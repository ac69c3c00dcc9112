"""Leases and notices over PostgreSQL."""
