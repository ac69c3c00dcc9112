"""Unit tests of fetching ahead."""
