"""Modules between a backbone and an answer."""
