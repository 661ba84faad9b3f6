"""Methods of post-training quantisation, each from a context to its decisions."""
