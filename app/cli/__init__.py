"""The command `lookalike`: parses arguments, asks one service, prints, and sets the exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys

import click
from pydantic import ValidationError

from app.cli import (
    backup,
    calibrate,
    catalogue,
    check,
    database,
    demo,
    duplicates,
    evaluate,
    index,
    model,
    page,
    search,
    status,
    tune,
    worker,
)
from app.errors import LookalikeError

INTERRUPTED = 130
"""What a shell reports for a command that Ctrl-C ended; SIGTERM ends ours the same way."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lookalike", prog_name="lookalike")
def cli() -> None:
    """Find products by picture.

    PostgreSQL with pgvector holds the catalogue; without LOOKALIKE_DATABASE_URL an embedded server
    is started in LOOKALIKE_HOME. Begin with `lookalike init`, then `lookalike ingest SOURCE`.
    """


for _command in (
    database.init,
    database.migrate,
    database.db,
    catalogue.ingest,
    catalogue.delete,
    index.index,
    model.model,
    worker.worker,
    search.search,
    duplicates.duplicates,
    evaluate.evaluate,
    calibrate.calibrate,
    tune.tune,
    status.status,
    check.check,
    backup.backup,
    backup.restore,
    page.page,
    demo.demo,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; errors people can put right are a sentence and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    _end_in_order()
    try:
        code = cli.main(standalone_mode=False)
    except LookalikeError as exc:
        code = _say(f"Error: {exc}", 1)
    except ValidationError as exc:
        code = _say(f"Error: {_settings(exc)}", 1)
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _say("Interrupted. What was finished is kept; run it again to go on.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception:
        logging.getLogger("lookalike").exception("This is a fault in Lookalike; please report it.")
        code = 70
    sys.exit(code if isinstance(code, int) else 0)


def _end_in_order() -> None:
    """Let SIGTERM do what Ctrl-C does: programs that were started end too, and what is half made
    is cleared away."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _settings(exc: ValidationError) -> str:
    """What is wrong with which environment variable."""
    wrong = exc.errors(include_url=False, include_context=False)[0]
    name = "LOOKALIKE_" + "_".join(str(part) for part in wrong["loc"]).upper()
    return f"{name} is {wrong['input']!r}, which cannot be: {wrong['msg']}."


def _say(message: str, code: int) -> int:
    click.echo(message, err=True)
    return code
