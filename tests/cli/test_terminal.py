"""On a terminal: a bar that lives, and Ctrl-C from the keyboard."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

from tests.cli import program
from tests.cli.conftest import Album
from tests.cli.program import StuckPicture

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

# Makes the pty on standard input its terminal, so that a ^C typed there is a signal.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def on_terminal(
    *arguments: str | os.PathLike[str],
    columns: int = 100,
    keys: Callable[[int], object] = lambda _: None,
    **streams: int,
) -> tuple[int, str]:
    """The exit code and everything that was written to the terminal.

    Args:
        arguments: of the program.
        columns: how wide the terminal is.
        keys: is given the keyboard.
        streams: those that do not go to the terminal.
    """
    keyboard, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = program.command(*arguments)
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE_TERMINAL, *command[1:]],
        **{"stdin": terminal, "stdout": terminal, "stderr": terminal, **streams},  # type: ignore[call-overload]
        env=program.environment(),
        start_new_session=True,
    )
    os.close(terminal)
    written = b""
    try:
        keys(keyboard)
        while piece := _read(keyboard):
            written += piece
        return process.wait(program.PATIENCE_S), written.decode()
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)


def _read(keyboard: int) -> bytes:
    try:
        return os.read(keyboard, 65536)
    except OSError:  # The last process on the terminal is gone.
        return b""


def test_the_bar_lives_and_the_report_follows(album: Album) -> None:
    columns = 50
    code, written = on_terminal(
        *("iterate", album.folder, "--workers", "2", "--batch-size", "1", "--on-error", "skip"),
        columns=columns,
    )
    assert code == 0
    # Drawn over itself, with the cursor hidden meanwhile.
    assert written.count("\x1b[2K") >= 2
    assert written.index("\x1b[?25l") < written.index("\x1b[?25h")
    plain = _CONTROL.sub("", written)
    assert "━" in plain
    assert "15/15" in plain
    for name in album.broken:
        assert f"{name}: " in plain
    assert "complete: 12 read + 3 skipped = 15 pictures" in plain
    bars = [part for part in re.split(r"[\r\n]+", plain) if "━" in part]
    assert [bar for bar in bars if len(bar) > columns] == []
    # One line, also where there is little room: nothing ever goes up to a line before.
    assert not re.search(r"\x1b\[\d*A", written)


def test_json_leaves_the_bar_on_the_error_stream(album: Album, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with report.open("w") as out:
        code, written = on_terminal(
            *("iterate", album.folder, "--workers", "2", "--on-error", "skip", "--json"),
            stdout=out.fileno(),
        )
    assert code == 0
    assert "━" in written
    assert report.read_text().startswith('{"penstock"')


def test_ctrl_c_on_the_keyboard_gives_the_terminal_back(stuck: StuckPicture) -> None:
    def press(keyboard: int) -> None:
        stuck.wait_reader()
        os.write(keyboard, b"\x03")

    code, written = on_terminal(
        "iterate", stuck.path.parent, "--workers", "2", "--batch-size", "4", keys=press
    )
    assert code == 130
    assert written.endswith("penstock: interrupted\r\n")
    assert "\x1b[?25h" in written
    assert "Traceback" not in written
