"""Unit tests of the leases adapters."""
