"""Prometheus's promtool, which checks the alert rules: the one on PATH, or one that Go builds here once.

python -m dev.promtool      builds it if it is missing and prints its path
"""

import sys

from dev.go_builds import BuildFailed, GoProgram

PROMTOOL = GoProgram(
    name="promtool",
    version="3.16.0",
    package="github.com/prometheus/prometheus/cmd/promtool",
    # Prometheus's Go modules count 3.x as 0.3xx.
    tag="v0.316.0",
    # About 200 s of one core that is not shared. A machine too busy for that skips the tests.
    timeout_s=600.0,
    # -p=1: one package at a time, to leave a core to others. Only the service discovery that our examples use: the
    # others are most of the code to compile.
    flags=("-p=1", "-tags=remove_all_sd,enable_dns_sd,enable_kubernetes_sd"),
)


def main() -> int:
    """Print promtool's path, or the reason why the tests that need it will be skipped."""
    try:
        print(PROMTOOL.find() or _built())
    except BuildFailed as error:
        print(f"the tests of the alert rules that need promtool will be skipped: {error}", file=sys.stderr)
    return 0


def _built() -> object:
    print(f"building promtool {PROMTOOL.version} with Go: some minutes, once …", file=sys.stderr, flush=True)
    return PROMTOOL.build()


if __name__ == "__main__":
    sys.exit(main())
