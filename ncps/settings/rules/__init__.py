"""Rules that check settings against each other, applied once all settings are read."""
