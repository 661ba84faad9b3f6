"""Run folders, and what is done to a run: one file a verb. The command line and Python call the same functions."""
