"""Samples and their kinds: what training and evaluation iterate."""
