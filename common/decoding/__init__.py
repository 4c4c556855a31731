"""Decoding in processes of its own, so that no image can hurt the process that received it."""
