"""Closures of store paths: pinned, so that they stay; removed, so that they go."""
