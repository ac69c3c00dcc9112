"""Connections, and the short cuts for their requests."""
