"""The command `lookalike`: parses arguments, asks one service, prints, and sets the exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import click

from app.cli.lazy_group import LazyGroup
from app.errors import Busy, LookalikeError

INTERRUPTED = 130
"""What a shell reports for a command that Ctrl-C ended; SIGTERM ends ours the same way."""


BUSY = 75
"""What a command ends with that may well succeed if it is tried again (EX_TEMPFAIL)."""

COMMANDS = {
    "init": (
        "app.cli.database:init",
        "Make the tables and record the model the catalogue is embedded with.",
    ),
    "migrate": (
        "app.cli.database:migrate",
        "Bring the tables, views and functions to this version; loads no model.",
    ),
    "db": ("app.cli.database:db", "The database server: its address, start and stop."),
    "ingest": (
        "app.cli.ingest:ingest",
        "Load SOURCE, a CSV of products or a folder of pictures, into the catalogue.",
    ),
    "delete": (
        "app.cli.ingest:delete",
        "Delete products, and the pictures that only they show.",
    ),
    "index": (
        "app.cli.index:index",
        "The FAISS index: a disposable copy of the embeddings that answers fast.",
    ),
    "model": (
        "app.cli.model:model",
        "The models of this catalogue: change from one to another while searches go on.",
    ),
    "worker": (
        "app.cli.worker:worker",
        "Rebuild the index when enough changed, until SIGTERM or Ctrl-C; serve metrics and health.",
    ),
    "search": (
        "app.cli.search:search",
        "Find the products that look like PHOTO (- for standard input), --sku or --text.",
    ),
    "duplicates": (
        "app.cli.duplicates:duplicates",
        "Products that are one: only year, size or spelling differ, or somebody said so.",
    ),
    "eval": (
        "app.cli.evaluate:evaluate",
        "Measure recall on QUERIES, a CSV with the columns query (a photo) and expected_sku.",
    ),
    "calibrate": (
        "app.cli.calibrate:calibrate",
        'Fit the distances that mean "same photo", "same product" and "similar".',
    ),
    "tune": (
        "app.cli.tune:tune",
        "Measure the paths of a filtered search side by side, and keep where they cross.",
    ),
    "status": (
        "app.cli.status:status",
        "Show database, model, catalogue and index; the exit code is 0 if all is well, else 1.",
    ),
    "check": (
        "app.cli.check:check",
        "Look for damage in catalogue and index; the exit code is 0 if there is none, else 1.",
    ),
    "backup": (
        "app.cli.backup:backup",
        "Back the catalogue up into TARGET, a new folder, as it is at this moment.",
    ),
    "restore": (
        "app.cli.backup:restore",
        "Restore the backup in SOURCE into a new database, all of it or nothing.",
    ),
    "page": ("app.cli.serve_page:page", "Serve the upload page until Ctrl-C."),
    "demo": (
        "app.cli.demo:demo",
        "Draw a catalogue, ingest it, build the index, search it, and open the page.",
    ),
}
"""Where each command is, and the first sentence of its help, word for word."""


@click.group(
    cls=LazyGroup,
    found_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="lookalike", prog_name="lookalike")
def cli() -> None:
    """Find products by picture.

    PostgreSQL with pgvector holds the catalogue; without LOOKALIKE_DATABASE_URL an embedded server
    is started in LOOKALIKE_HOME. Begin with `lookalike init`, then `lookalike ingest SOURCE`.
    """


def main() -> None:
    """Run the command line; errors people can put right are a sentence and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    _end_in_order()
    try:
        code = cli.main(standalone_mode=False)
    except Busy as exc:
        code = _say(f"Error: {exc}", BUSY)
    except LookalikeError as exc:
        code = _say(f"Error: {exc}", 1)
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _say("Interrupted. What was finished is kept; run it again to go on.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as exc:
        code = _unforeseen(exc)
    sys.exit(code if isinstance(code, int) else 0)


def _end_in_order() -> None:
    """Let SIGTERM do what Ctrl-C does: programs that were started end too, and what is half made
    is cleared away."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _unforeseen(exc: Exception) -> int:
    """A setting that cannot be, which is the only thing pydantic reads; else our own fault."""
    from pydantic import ValidationError  # not for every `--help`

    if isinstance(exc, ValidationError):
        return _say(
            f"Error: {_setting(exc.errors(include_url=False, include_context=False)[0])}", 1
        )
    logging.getLogger("lookalike").exception("This is a fault in Lookalike; please report it.")
    return 70


def _setting(wrong: Mapping[str, Any]) -> str:
    """What is wrong with which environment variable."""
    name = "LOOKALIKE_" + "_".join(str(part) for part in wrong["loc"]).upper()
    return f"{name} is {wrong['input']!r}, which cannot be: {wrong['msg']}."


def _say(message: str, code: int) -> int:
    click.echo(message, err=True)
    return code
