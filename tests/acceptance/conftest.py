"""The measurements of the acceptance tests, at the end of the run."""

from typing import Any

MEASURED = "measured"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a line for each measurement."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, [])]
    lines = [value for report in reports for name, value in report.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section(MEASURED)
        for line in lines:
            terminalreporter.write_line(str(line))
