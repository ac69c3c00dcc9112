"""How caches know each other: the way a question has come, and tickets instead of a secret."""
