"""Masked faces and noise patterns from a tree of images; the command line in __main__.py."""
