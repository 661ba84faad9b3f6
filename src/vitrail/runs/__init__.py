"""What is done to a run: each verb of the command line as a function of a run folder."""
