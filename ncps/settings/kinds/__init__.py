"""Kinds of values: how a text becomes a value of a setting, and how the value is shown."""
