"""The settings: a frozen class for each branch, a field for each setting; see `declare`."""
