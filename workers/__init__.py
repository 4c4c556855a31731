"""The worker service: downloads, decodes and stores images."""
