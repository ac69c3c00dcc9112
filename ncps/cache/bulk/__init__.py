"""Questions about many store paths in one request."""
