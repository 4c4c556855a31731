"""`match keys`: the API keys of a service, in its local file of keys."""

from pathlib import Path
from typing import Annotated

import typer

from match_cli import options, output
from match_cli.exits import UsageProblem
from match_cli.keys_file import SCOPES, KeysFile

app = typer.Typer(no_args_is_help=True, help="Edit a local file of API keys, MATCH_API_KEYS_FILE.")

File = Annotated[Path, typer.Option("--file", metavar="FILE", envvar="MATCH_API_KEYS_FILE", help="The file of keys.")]
DEFAULT = Path("keys.toml")


@app.command("list")
def list_(*, file: File = DEFAULT, is_json: options.Json = False) -> None:
    """List the names of keys and their scopes."""
    keys = KeysFile(file).keys
    if is_json:
        for key in keys:
            output.document(output.plain(key))
    elif keys:
        rows = [[key.name, " ".join(key.scopes), " ".join(key.collections or ["all"])] for key in keys]
        output.table(["name", "scopes", "collections"], rows)
    else:
        output.message(f"no keys in {file}")


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name in logs and rate limits.")],
    scopes: Annotated[list[str], typer.Argument(metavar="SCOPE", help=", ".join(SCOPES))],
    *,
    collections: Annotated[
        list[str] | None,
        typer.Option("--collection", metavar="NAME", help="Only this collection, or those of a pattern; repeatable."),
    ] = None,
    file: File = DEFAULT,
    is_json: options.Json = False,
) -> None:
    """Make a key and add it to the file. The key is printed once: the file has only its hash."""
    key = KeysFile(file).add(name, scopes, collections=collections or [])
    if is_json:
        output.document({"name": name, "key": key})
    else:
        output.line(key)
        output.message(f"{file}: {name} added; the key is shown only once")


@app.command("remove")
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of keys.")],
    *,
    file: File = DEFAULT,
    is_json: options.Json = False,
) -> None:
    """Remove keys from the file. A running service applies it within seconds."""
    if not file.exists():
        raise UsageProblem(f"{file}: no such file")
    keys = KeysFile(file)
    for name in names:
        keys.remove(name)
    if is_json:
        output.document({"removed": names})
    else:
        output.message(f"{file}: {', '.join(names)} removed")
