"""A run that adds images: resume, send, wait, prune, report."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event

import typer

from match_cli import output
from match_cli.comparing import compare, survey
from match_cli.context import long_client_of, pause_until
from match_cli.discovery import Discovered
from match_cli.exits import Exit
from match_cli.folders import state_folder
from match_cli.journal import Journal, State
from match_cli.progress import AddProgress
from match_cli.pruning import Prune
from match_cli.sending import Result, Sender, Settings, Totals
from match_cli.shrinking import is_available
from match_client import Conflict, Match
from match_client.adds import Form, new_key
from match_client.transport import NDJSON, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The options of a run. `folders` are pruned after it."""

    settings: Settings
    is_waiting: bool
    is_json: bool
    folders: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The numbers of images at the end of a run.

    `pending`: not processed yet. `deleted`: stored by an earlier run, deleted in the service, and sent again.
    """

    pending: int = 0
    pruned: int = 0
    deleted: int = 0


def run(
    context: typer.Context, discover: Callable[[], Iterator[Discovered]], options: Run, *, is_countable: bool
) -> None:
    """Add the images that `discover` yields, and print the result; raises typer.Exit if some failed."""
    stop, progress = Event(), AddProgress()
    wait = pause_until(stop)

    def pause(seconds: float) -> None:
        progress.wait()
        wait(seconds)

    collection = options.settings.collection
    with (
        long_client_of(context, pause=pause) as match,
        Journal.of(state_folder(), match.url, collection) as journal,
    ):
        batch = _batch(match, journal, collection)
        sender = Sender(match, journal, replace(options.settings, batch=batch), progress.report, stop=stop)
        with progress.shown(), _interruptible(progress), sender.running():
            total, prefix = survey(discover()) if is_countable else (None, journal.common_prefix())
            progress.expect(total)
            compare(match, journal, prefix, collection=collection, jobs=options.settings.jobs)
            sender.resume()
            for image in discover():
                sender.put(image)
            sender.finish(is_waiting=options.is_waiting)
        prune = Prune(match, journal, collection=collection)
        pruned = sum(prune.folder(folder) for folder in _prunable(options, progress.totals))
        prune.report()
        pending = journal.count(State.ACCEPTED)
        shown_batch = batch if sender.has_sent else None
        numbers = Numbers(pending=pending, pruned=pruned, deleted=sender.deleted)
        _print(progress.totals, numbers, is_json=options.is_json, batch=shown_batch)
    if progress.totals.failures:
        raise typer.Exit(Exit.INCOMPLETE)


def _batch(match: Match, journal: Journal, collection: str | None) -> str:
    """Return the id of the run's batch: that of an interrupted run if it accepts more images, else a new one."""
    batch = journal.unfinished_batch()
    if batch is not None:
        try:
            # It adds nothing.
            request = Request(
                method="POST",
                path=Form.LINES.value,
                query={} if collection is None else {"collection": collection},
                body=b"",
                content_type=NDJSON,
                headers={"X-Batch-ID": batch},
            )
            match.transport.send(request)
        except Conflict:
            batch = None
    batch = batch or new_key()
    journal.begin_batch(batch)
    return batch


@contextmanager
def _interruptible(progress: AddProgress) -> Iterator[None]:
    """Let requests end after Ctrl-C; a second Ctrl-C ends the process at once."""
    try:
        yield
    except KeyboardInterrupt:
        _print(progress.totals, Numbers(), is_json=False, batch=None)
        output.message("interrupted: the same command continues")
        raise


def _prunable(options: Run, totals: Totals) -> Sequence[str]:
    """Return the folders to prune: none if a folder could not be read."""
    if options.folders and totals.failures["unreadable_folder"]:
        output.message("not pruned: a folder cannot be read")
        return ()
    return options.folders


def _print(totals: Totals, numbers: Numbers, *, is_json: bool, batch: str | None) -> None:
    results = totals.results
    stored = results[Result.STORED] + results[Result.FEATURELESS]
    if is_json:
        output.document(
            {
                "stored": stored,
                "featureless": results[Result.FEATURELESS],
                "skipped": results[Result.SKIPPED],
                "pending": numbers.pending,
                "failed": totals.failures.total(),
                "failures": dict(totals.failures),
                "shrunk": totals.shrunk,
                "pruned": numbers.pruned,
                "deleted_before": numbers.deleted,
                "batch": batch,
            }
        )
        return
    counts = {
        "stored": stored,
        "unchanged": results[Result.SKIPPED],
        "sent again, since the service had deleted them": numbers.deleted,
        "not processed yet": numbers.pending,
        "shrunk": totals.shrunk,
        "pruned": numbers.pruned,
        "without features": results[Result.FEATURELESS],
        "failed": totals.failures.total(),
    }
    shown = [f"{number} {what}" for what, number in counts.items() if number or what == "stored"]
    output.message(", ".join(shown))
    if batch is not None and numbers.pending:
        output.message(f"match batches follow {batch} shows the progress")
    for code, number in totals.failures.most_common():
        hint = ""
        if code == "too_large" and not is_available():
            hint = " (install match-client[images]: it shrinks them)"
        output.message(f"  {number} {code}{hint}")
