"""Connections and their short cuts."""
