"""One file a runtime; each has ``load(source, *, threads) -> Session``."""
