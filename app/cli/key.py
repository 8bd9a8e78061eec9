"""`lookalike key`: create, list and revoke keys of the HTTP API."""

from __future__ import annotations

from dataclasses import asdict

import click

from app.bootstrap import App
from app.cli.output import as_json, note, print_json, print_table
from app.operations.api_keys import (
    RECORDS,
    SCOPES,
    ApiKey,
    Records,
    Scope,
    parse_expiry,
    parse_rate,
)


@click.group()
def key() -> None:
    """Create, list and revoke keys of the HTTP API."""


@key.command()
@click.option(
    "--scope", type=click.Choice(SCOPES), default="search", show_default=True,
    help="What the key allows: searches; writing too; or status and metrics too.",
)  # fmt: skip
@click.option("--name", default="", help="A note on who has the key.")
@click.option("--rate", help="Most requests, as 5/s, 30/min or 1000/h, in each process.")
@click.option("--expires", help="When it ends: 30d, 12h or a date such as 2031-05-01.")
@click.option(
    "--origin", "origins", multiple=True,
    help="Pages of this origin may use it in a browser; may be repeated.",
)  # fmt: skip
@click.option(
    "--record", "records", type=click.Choice(RECORDS), default="results", show_default=True,
    help="What is recorded of searches with it: nothing; the products shown; or the words, sku or"
    " stored photo too, for `lookalike eval --from-events`.",
)  # fmt: skip
@as_json
def create(
    scope: Scope, name: str, rate: str | None, expires: str | None, origins: tuple[str, ...],
    records: Records, as_json: bool,
) -> None:  # fmt: skip
    """Create a key and print it, once."""
    limit = None if rate is None else parse_rate(rate)
    ends = None if expires is None else parse_expiry(expires)
    with App() as app:
        made = app.api_keys.create(
            scope, name=name, rate=limit, expires_at=ends, origins=origins, records=records
        )
    if as_json:
        print_json({"key": made, "id": made.split("_")[1], "scope": scope})
        return
    click.echo(made)
    note("Keep it: it cannot be shown again.")


@key.command("list")
@as_json
def list_keys(as_json: bool) -> None:
    """List the keys, the newest first."""
    with App() as app:
        keys = app.api_keys.listed()
    if as_json:
        print_json([asdict(each) for each in keys])
        return
    columns = ("id", "name", "scope", "state", "created", "expires", "rate", "records", "origins")
    print_table(columns, [_row(each) for each in keys])


@key.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
def revoke(ids: tuple[str, ...]) -> None:
    """Revoke keys by their ids: the next request with one is refused."""
    with App() as app:
        for id_ in ids:
            app.api_keys.revoke(id_)
            note(f"The key {id_} is revoked.")


def _row(each: ApiKey) -> tuple[object, ...]:
    expires = "" if each.expires_at is None else f"{each.expires_at:%Y-%m-%d %H:%M}"
    rate = "" if each.rate is None else f"{each.rate:g}/s"
    return (
        each.id, each.name, each.scope, each.state, f"{each.created_at:%Y-%m-%d %H:%M}", expires,
        rate, each.records, " ".join(each.origins),
    )  # fmt: skip
