"""gunicorn's worker, with requests read by its event loop."""
