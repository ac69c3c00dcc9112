"""Closures of store paths: pinning them, so that they stay, and removing them."""
