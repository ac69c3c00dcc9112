"""ncps: a pull-through binary cache for Nix."""

__version__ = "0.1.0"
