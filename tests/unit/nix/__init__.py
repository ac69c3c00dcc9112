"""Unit tests of the formats of Nix."""
