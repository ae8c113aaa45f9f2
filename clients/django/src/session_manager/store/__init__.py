"""Where sessions are: the extension's functions, the transaction around them, and the cache."""
