"""Tests with real Nix clients."""
