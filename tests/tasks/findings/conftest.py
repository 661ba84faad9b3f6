from pretended_run import bare_run  # noqa: F401 (a fixture)
