"""One file a runtime; each has ``load(source, *, threads) -> Session``, some with a ``shape`` of images too."""
