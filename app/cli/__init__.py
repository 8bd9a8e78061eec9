"""The command `lookalike`: parses arguments, calls one service, prints, sets the exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import click

from app.cli.ending import end
from app.cli.lazy_group import LazyGroup
from app.errors import Busy, LookalikeError, UnsupportedPlatform

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM (128 + SIGINT, as shells report it)."""

BUSY = 75
"""Exit code where a retry may succeed (EX_TEMPFAIL of sysexits.h)."""

INTERNAL_ERROR = 70
"""Exit code after an error of Lookalike itself (EX_SOFTWARE of sysexits.h)."""

COMMANDS = {
    "init": (
        "app.cli.database:init",
        "Create the tables and record the embedding model.",
    ),
    "migrate": (
        "app.cli.database:migrate",
        "Migrate tables, views and functions; loads no model.",
    ),
    "db": (
        "app.cli.database:db",
        "Manage the database server: address, roles, start and stop.",
    ),
    "ingest": (
        "app.cli.ingest:ingest",
        "Load SOURCE, a file, a feed or a folder of pictures, into the catalogue.",
    ),
    "delete": (
        "app.cli.ingest:delete",
        "Delete products, and the pictures that no other product shows.",
    ),
    "undo": (
        "app.cli.undo:undo",
        "Undo RUN, an ingest, deletion or undo; without RUN, list the last ones.",
    ),
    "index": (
        "app.cli.index:index",
        "Build, audit and list FAISS indexes.",
    ),
    "model": (
        "app.cli.model:model",
        "Add, embed, compare, activate and drop embedding models.",
    ),
    "words": (
        "app.cli.words:words",
        "Set the language of the catalogue's words, and extend its synonyms.",
    ),
    "colours": (
        "app.cli.colours:colours",
        "Compute the colours of pictures loaded by an earlier version.",
    ),
    "worker": (
        "app.cli.worker:worker",
        "Rebuild the index when enough has changed; serve metrics.",
    ),
    "search": (
        "app.cli.search:search",
        "Find products similar to PHOTO, --sku or --text.",
    ),
    "explain": (
        "app.cli.explain:explain",
        "Draw which parts of PHOTO and of the product SKU make them alike, as a PNG.",
    ),
    "duplicates": (
        "app.cli.duplicates:duplicates",
        "List, decide and evaluate duplicate products.",
    ),
    "eval": (
        "app.cli.evaluate:evaluate",
        "Measure recall on QUERIES, a CSV of photos or words and expected skus.",
    ),
    "calibrate": (
        "app.cli.calibrate:calibrate",
        "Fit the distance cut-offs of labels, and what has no close match.",
    ),
    "tune": (
        "app.cli.tune:tune",
        "Measure the paths of filtered searches; store the crossovers.",
    ),
    "status": (
        "app.cli.status:status",
        "Run the health checks; the exit code is 1 if any fails.",
    ),
    "check": (
        "app.cli.check:check",
        "Look for damage in catalogue and index; exit code 1 if any.",
    ),
    "backup": (
        "app.cli.backup:backup",
        "Back up a snapshot of the catalogue into TARGET, a new folder.",
    ),
    "restore": (
        "app.cli.backup:restore",
        "Restore the backup in SOURCE into a new database.",
    ),
    "page": ("app.cli.serve_page:page", "Serve the web pages until Ctrl-C."),
    "api": ("app.cli.api:api", "Serve the HTTP API until Ctrl-C."),
    "key": ("app.cli.key:key", "Create, list and revoke keys of the HTTP API."),
    "events": (
        "app.cli.events:events",
        "Manage recorded searches, and events on their results.",
    ),
    "demo": (
        "app.cli.demo:demo",
        "Draw a demo catalogue, ingest, index, search and serve it.",
    ),
}
"""By name: `module:attribute` of each command, and the first sentence of its help."""


@click.group(
    cls=LazyGroup,
    locations=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="lookalike", prog_name="lookalike")
def cli() -> None:
    """Find products by picture.

    PostgreSQL with pgvector stores the catalogue. Without LOOKALIKE_DATABASE_URL, an embedded
    server runs in LOOKALIKE_HOME. Start with `lookalike init`, then `lookalike ingest SOURCE`.
    """


def main() -> None:
    """Run the command line; an error the user can correct prints one sentence, exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    _treat_sigterm_as_ctrl_c()
    _silence_libraries()
    try:
        if sys.platform == "win32":
            raise UnsupportedPlatform()
        code = cli.main(standalone_mode=False)
    except Busy as exc:
        code = _fail(f"Error: {exc}", BUSY)
    except LookalikeError as exc:
        code = _fail(f"Error: {exc}", 1)
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _fail("Interrupted. Finished work is kept; run it again to go on.", INTERRUPTED)
    except BrokenPipeError:
        # The reader closed the pipe (`| head`), which is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as exc:
        code = _unexpected(exc)
    end(code)


def _treat_sigterm_as_ctrl_c() -> None:
    """Clean up on SIGTERM as on Ctrl-C: stop child processes, remove unfinished files."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _silence_libraries() -> None:
    """Keep advice of the model libraries to programmers off stderr; their errors are ours to show.

    The processes that this one starts inherit it, and variables that the user has set stay.
    """
    for variable in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(variable, "error")


def _unexpected(exc: Exception) -> int:
    """Report an invalid setting, or log an error of Lookalike itself; returns the exit code.

    Only settings are validated with pydantic, so a ValidationError is always about a setting.
    """
    from pydantic import ValidationError  # here, because it would slow down `--help`

    if isinstance(exc, ValidationError):
        error = exc.errors(include_url=False, include_context=False)[0]
        return _fail(f"Error: {_invalid_setting(error)}", 1)
    logging.getLogger("lookalike").exception("This is a bug in Lookalike; please report it.")
    return INTERNAL_ERROR


def _invalid_setting(error: Mapping[str, Any]) -> str:
    """Which environment variable is invalid, and why, from an error of pydantic."""
    name = "LOOKALIKE_" + "_".join(str(part) for part in error["loc"]).upper()
    reason = str(error["msg"]).removeprefix("Value error, ")
    return f"{name} is {error['input']!r}, which is not valid: {reason.rstrip('.')}."


def _fail(message: str, code: int) -> int:
    click.echo(message, err=True)
    return code
