"""Unit tests of the database adapters."""
