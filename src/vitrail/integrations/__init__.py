"""Vitrail's backbones under other libraries' names; each module imports its library only when it is called."""
