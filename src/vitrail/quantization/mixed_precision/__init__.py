"""Mixed precision: a bit width for every tensor, within a budget."""
