"""Exit codes of the command line, and problem documents of the HTTP API."""

from __future__ import annotations

import inspect

from app.api.problems import RETRIED, STATUS, problem_type
from app.cli import BUSY, INTERNAL_ERROR, INTERRUPTED
from reference.markdown import code, table

EXIT_CODES = {
    0: "success",
    1: "an error that can be corrected: the message says how; or a check that found a problem",
    2: "invalid command line",
    INTERNAL_ERROR: "a bug in Lookalike; the traceback is on standard error",
    BUSY: "too many concurrent searches; try again later",
    INTERRUPTED: "interrupted by Ctrl-C or SIGTERM; finished work is kept",
}


def exit_codes() -> str:
    """A table of exit codes."""
    return table(("exit code", "meaning"), [(code(n), told) for n, told in EXIT_CODES.items()])


def problems() -> str:
    """A table of the types of errors that the HTTP API answers."""
    rows = sorted(
        (str(status), code(problem_type(error)), "yes" if error in RETRIED else "", _meaning(error))
        for error, status in STATUS.items()
    )
    return table(("status", "`type`", "retry", "meaning"), rows)


def _meaning(error: type[Exception]) -> str:
    return inspect.cleandoc(error.__doc__ or "").split("\n\n")[0]
