"""Questions about many store paths at once."""
