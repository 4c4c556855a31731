"""Outgoing HTTP to untrusted addresses: downloads and webhooks."""
