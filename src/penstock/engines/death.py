"""What is known of a worker's end."""

from __future__ import annotations

import signal

from penstock.engines.protocol import Died


def certify(seat: int, pid: int, code: int | None, fault: str = "") -> Died:
    """What is reported of a worker that is gone.

    Args:
        seat: its number.
        pid: its process id.
        code: its exit code; negative: the number of the signal that killed it.
        fault: why it was made to go, if it did not go by itself.
    """
    return Died(seat, f"worker {seat} (pid {pid}) {fault or _in_words(code)}", pid)


def _in_words(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
