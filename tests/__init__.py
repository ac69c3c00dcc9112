"""The tests of ncps."""
