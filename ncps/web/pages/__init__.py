"""The pages: one class for each kind of path."""
