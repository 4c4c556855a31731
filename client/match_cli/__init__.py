"""The command line of Match."""
