"""What both doors share; no web, no queue."""
