"""The command line: one file a verb; each parses, calls and prints, and has no logic of its own."""
