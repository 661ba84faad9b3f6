"""What is done to a run."""
