"""Siblings: the workers of one daemon, and how they reach each other."""
