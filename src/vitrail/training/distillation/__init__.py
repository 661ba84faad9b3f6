"""Learning from a teacher: what is taught, one lesson a file, and how the lessons are weighed against the labels."""
