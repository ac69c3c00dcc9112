"""Unit tests of the fakes: they keep the contracts of what they stand for."""
