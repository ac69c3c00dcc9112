"""Realisations of content-addressed derivations: served, fetched, and taken from clients."""
