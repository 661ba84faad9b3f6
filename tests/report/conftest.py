from pretended_run import bare_run, full_run  # noqa: F401 (fixtures)
