"""Questions about many paths, on a core of fakes."""
