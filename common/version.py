"""The version of Match, as in pyproject.toml."""

VERSION = "0.1.0"
USER_AGENT = f"Match/{VERSION} (self-hosted reverse image search)"
"""The name of downloads and webhooks, unless the operator sets another one."""
BUILD_INFO = "match_build_info"
BUILD_INFO_MEANING = "1; the label is the version of Match."
"""The metric with the version."""
