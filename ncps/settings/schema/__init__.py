"""The settings: one frozen class a branch, each field a setting (see `ncps.settings.declare`)."""
