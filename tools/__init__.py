"""Programs on top of the project, each run as `python -m tools.<name>`; nothing outside imports them."""
