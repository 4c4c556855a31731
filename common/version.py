"""The version of Match, as in pyproject.toml."""

VERSION = "0.1.0"
USER_AGENT = f"Match/{VERSION} (self-hosted reverse image search)"
"""The name of downloads and webhooks, unless the operator sets another one."""
