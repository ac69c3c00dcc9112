"""Rules that hold one setting to another, applied once all settings are read."""
