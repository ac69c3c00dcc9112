"""Tokens that an issuer of OpenID Connect signs, as CI systems have them."""
