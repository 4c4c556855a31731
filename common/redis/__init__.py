"""How we talk to Redis."""
