"""How caches know each other: the trail of a question, and tickets instead of a secret."""
