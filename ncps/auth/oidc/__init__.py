"""Tokens that an OpenID Connect issuer signs, for example a CI system."""
