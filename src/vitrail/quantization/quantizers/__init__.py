"""Quantizers: the codes of one operand and the real values that they stand for; observers that choose their scales."""
