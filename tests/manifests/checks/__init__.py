"""Rendering of the manifests, and rules for rendered objects."""
