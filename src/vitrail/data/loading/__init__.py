"""From a path to checked, split samples, and from samples to batches."""
