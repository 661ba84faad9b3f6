"""Run folders and the verbs on them, one file per verb, for the command line and Python alike."""
