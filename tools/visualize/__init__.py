"""Pictures: one file per group of them, the command line in __main__.py."""
