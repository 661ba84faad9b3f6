"""The graph of a model: captured, prepared, run with hooks, split into blocks, rewritten with Q/DQ operations."""
