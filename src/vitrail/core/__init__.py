"""Dataclasses, errors and file access that all packages share; it imports no other package of Vitrail."""
