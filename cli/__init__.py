"""The command line, one command a file; `app.py` gathers them."""
