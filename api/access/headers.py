"""The headers of every reply that tell browsers how little they may do with it."""

from collections.abc import Mapping

# The pages that have a policy of their own, stricter where it matters to them, say so in their replies.
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# HSTS is left to the proxy that ends TLS: it alone knows whether the host is reached by https only.
SECURITY: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": NOTHING,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
