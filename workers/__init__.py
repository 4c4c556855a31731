"""The queue door."""
