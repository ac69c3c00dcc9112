"""Contracts: tests that every implementation of a port must pass."""
