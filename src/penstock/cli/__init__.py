"""The command line.

app.py       the arguments, checked; nothing heavy is imported for --help
request.py   what was asked for, frozen
iterate.py   one run from beginning to end: every way it can end has its exit code
consume.py   the epoch itself; the only file here that imports torch
screen.py    progress while it runs: a live bar, plain lines, or nothing
report.py    what happened: as text, and as JSON
explain.py   errors in words for someone who sees no code
run.py       somebody else's program, run by penstock as python would run it
"""

from __future__ import annotations

import signal
import sys
from io import TextIOWrapper

_TOOLS = {"typer": "typer", "rich": "rich", "click": "typer"}
"""What this room imports and a plain installation does not have, and what brings it."""

EXIT_INTERRUPTED = 128 + signal.SIGINT


def main() -> int:
    """The entry point of the program `penstock`.

    Returns:
        The exit code, where the command line's own machinery did not exit with it already.
    """
    from penstock.cli.run import Handover, run

    hook = sys.excepthook
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, TextIOWrapper)]
    errors = [stream.errors for stream in streams]
    for stream in streams:
        # A name may hold what the terminal's encoding cannot say; it is then shown escaped.
        stream.reconfigure(errors="backslashreplace")
    try:
        from penstock.cli.app import app

        app()
        return 0
    except Handover as handover:
        program = handover.program
    except ModuleNotFoundError as error:
        missing = _TOOLS.get((error.name or "").partition(".")[0])
        if missing is None:
            raise
        print(
            f"penstock: error: the command line needs {missing}, which is not installed; "
            'install it with: pip install "penstock[cli]"',
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("penstock: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    # Behind all the machinery above, and with nothing left of what it has changed.
    sys.excepthook = hook
    for stream, before in zip(streams, errors, strict=True):
        stream.reconfigure(errors=before)
    return run(program)
