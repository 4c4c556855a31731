"""Images: decoding, signatures and orientations."""
