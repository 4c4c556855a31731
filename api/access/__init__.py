"""Access control: API keys, scopes, origins and security headers."""
