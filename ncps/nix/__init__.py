"""The formats of Nix: pure values and parsers, no I/O."""
