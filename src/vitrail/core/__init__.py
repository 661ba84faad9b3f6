"""What crosses package borders: frozen dataclasses, errors, the run folder. Imports nothing of ours."""
