"""Accepted work in Redis, from the request to its end."""
