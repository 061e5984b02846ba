"""`penstock iterate`: one run from beginning to end, and what its exit code is.

headline ──> consume: dataset, loader, batches ──> report
                │ progress while it goes on
                v
              screen
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings

from penstock.cli import EXIT_INTERRUPTED
from penstock.cli.explain import explain
from penstock.cli.report import Report, Trouble
from penstock.cli.request import Request
from penstock.cli.screen import choose_screen, show_text
from penstock.errors import OptionError

EXIT_STOPPED = 1
EXIT_BAD_ARGUMENTS = 2
EXIT_SKIPPED = 3


def run(request: Request) -> int:
    """Does what was asked for and reports on it.

    Returns:
        The exit code.
    """
    warnings.formatwarning = _one_line
    report = Report(request)
    screen = choose_screen(json=request.json)
    try:
        with screen:
            screen.begin(request.headline)
            # Here, so that the headline is there while torch is imported.
            from penstock.cli.consume import consume

            consume(request, report, screen)
    except KeyboardInterrupt:
        _end(report, "interrupted", EXIT_INTERRUPTED, Trouble("KeyboardInterrupt", "interrupted"))
    except OptionError as error:
        _end(report, "refused", EXIT_BAD_ARGUMENTS, _trouble(error, request))
    except Exception as error:
        _end(report, "stopped", EXIT_STOPPED, _trouble(error, request))
    else:
        _close_account(report)
    return _tell(report)


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning for someone who is not interested in which line of code gave it."""
    return f"penstock: warning: {message}\n"


def _end(report: Report, outcome: str, exit_code: int, trouble: Trouble | None) -> None:
    report.outcome, report.exit_code, report.trouble = outcome, exit_code, trouble


def _trouble(error: Exception, request: Request) -> Trouble:
    if request.traceback:
        traceback.print_exception(error)
    return Trouble(type(error).__name__, explain(error, request))


def _close_account(report: Report) -> None:
    """The run came to its end: is every picture accounted for?"""
    if report.missing or report.repeated:
        message = (
            f"{report.samples:,} read and {len(report.skipped):,} skipped do not account for the "
            f"{report.total:,} pictures: {report.missing:,} are missing and {report.repeated:,} "
            "came more than once. This is a fault of penstock; please report it"
        )
        _end(report, "stopped", EXIT_STOPPED, Trouble("AccountError", message))
    elif report.skipped and report.request.strict:
        _end(report, "complete", EXIT_SKIPPED, None)
    else:
        _end(report, "complete", 0, None)


def _tell(report: Report) -> int:
    """Writes the report and returns the exit code."""
    exit_code = report.exit_code
    try:
        if report.request.json:
            print(report.as_json(), flush=True)
        elif report.begun:
            show_text(report.as_text())
    except OSError as error:
        _give_up_output()
        exit_code = EXIT_STOPPED
        # Whoever closed the pipe has read enough and wants to hear no more.
        if not isinstance(error, BrokenPipeError):
            print(f"penstock: error: the report cannot be written: {error}", file=sys.stderr)
    if report.trouble is not None:
        severity = "" if report.exit_code == EXIT_INTERRUPTED else "error: "
        print(f"penstock: {severity}{report.trouble.message}", file=sys.stderr, flush=True)
    return exit_code


def _give_up_output() -> None:
    """What is still in the buffer of standard output would be written, and fail, at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
