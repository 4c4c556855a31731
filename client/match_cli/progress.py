"""The progress of an add: a bar with rate, time left and failures by code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from match_cli.output import errors, message
from match_cli.sending import Report, Result, Totals

# Failures that are printed one by one; the others are only counted.
SHOWN_FAILURES = 20


class _Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        """Return the rate of the last seconds."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f}/s" if speed else "")


class AddProgress:
    """Counts results, and shows them while standard error is a terminal."""

    def __init__(self) -> None:
        self.totals = Totals()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[failures]}", style="red"),
            console=errors,
            disable=not errors.is_terminal,
        )
        self._is_waiting = False
        self._task = self._bar.add_task("adding", total=None, failures="")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar during the `with` block."""
        with self._bar:
            yield

    def expect(self, total: int | None) -> None:
        """Set the number of images, or None if it is not known."""
        self._bar.update(self._task, total=total)

    def wait(self) -> None:
        """Show that the service cannot answer now, until the next result."""
        if not self._is_waiting:
            self._is_waiting = True
            self._bar.update(self._task, description="waiting for the service")

    def report(self, report: Report) -> None:
        """Count a result, and print the first failures."""
        self.totals.add(report)
        if self._is_waiting:
            self._is_waiting = False
            self._bar.update(self._task, description="adding")
        if not report.is_late:
            self._bar.advance(self._task)
        if report.result is Result.FAILED:
            self._show_failure(report)

    def _show_failure(self, report: Report) -> None:
        failures = self.totals.failures
        counts = ", ".join(f"{number} {code}" for code, number in failures.most_common(3))
        self._bar.update(self._task, failures=escape(counts))
        number = failures.total()
        if number <= SHOWN_FAILURES:
            message(f"{report.source}: {report.reason} ({report.code})")
        if number == SHOWN_FAILURES:
            message("further failures are only counted")


class SearchProgress:
    """The progress of searches by all stored images."""

    def __init__(self, total: int, searched: int) -> None:
        self._total = total
        self._searched = searched

    @contextmanager
    def shown(self) -> Iterator[Callable[[int], None]]:
        """Show the bar during the `with` block, and yield a function that advances it."""
        columns = TextColumn("searching"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
        with Progress(*columns, console=errors, disable=not errors.is_terminal) as bar:
            task = bar.add_task("", total=self._total, completed=self._searched)
            yield lambda number: bar.advance(task, number)
