"""Logs and traces, without secrets in them."""
