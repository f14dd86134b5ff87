"""The report: numbers in evaluation.py, pictures in drawings.py, the page and the command in __main__.py."""
