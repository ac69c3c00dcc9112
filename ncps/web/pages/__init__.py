"""One resource for each kind of path."""
