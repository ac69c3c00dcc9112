"""Realisations of content-addressed derivations: serving, fetching and accepting them."""
