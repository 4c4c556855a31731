"""The program `match`: its commands, and the exit code of each error."""

import os
import sqlite3
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from match_cli import output
from match_cli.commands import adds, batches, collections, images, keys, queue, searches, service
from match_cli.context import GlobalOptions
from match_cli.exits import Exit, UsageProblem, exit_of
from match_cli.folders import state_folder
from match_client import MatchError


class Commands(TyperGroup):
    """Turns errors into a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the types are private to typer
        """Run the command."""
        try:
            return super().invoke(ctx)
        except MatchError as error:
            output.error(error)
            raise typer.Exit(exit_of(error)) from None
        except UsageProblem as error:
            output.message(f"match: {error}")
            raise typer.Exit(Exit.USAGE) from None
        except sqlite3.Error as error:
            output.message(f"match: {state_folder()}: {error}; the same command continues")
            raise typer.Exit(Exit.USAGE) from None
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of the output, such as head, has what it needs.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(Exit.OK) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def set_options(
    context: typer.Context,
    *,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The service; default: MATCH_URL or the profile.")
    ] = None,
    profile: Annotated[str | None, typer.Option(metavar="NAME", help="A profile of profiles.toml.")] = None,
) -> None:
    """Find images with Match, a self-hosted reverse image search.

    The API key is in MATCH_API_KEY or in the profile. An index of image-match or dsys/match is imported by
    python -m common.store.import_elasticsearch URL INDEX.
    """
    context.obj = GlobalOptions(url, profile)


app.command()(adds.add)
app.command("import")(adds.import_)
app.command("search")(searches.search_)
app.command()(searches.compare)
app.command()(searches.duplicates)
app.command("list")(images.list_)
app.command()(images.export)
app.command()(images.edit)
app.command()(images.delete)
app.command()(service.status)
app.command()(service.usage)
app.command()(service.tasks)
app.command()(service.serve)
app.add_typer(batches.app, name="batches")
app.add_typer(collections.app, name="collections")
app.add_typer(queue.app, name="queue")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="match")
    except SystemExit as end:
        if end.code == Exit.INTERRUPTED:
            # After a second Ctrl-C threads may still wait for replies, which the exit would wait for.
            sys.stdout.flush()
            os._exit(Exit.INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
