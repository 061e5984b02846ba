"""What is shown while a run goes on.

    a terminal         a live bar
    a pipe or a file   a line every other second
    --json             a live bar on standard error if that is a terminal, else nothing

No thread draws: whoever waits for batches calls `show` now and then. So a worker that has to be
forked in the middle of a run is forked from a process of one thread.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from penstock.observe.progress import Progress, ProgressLines


class Screen(contextlib.AbstractContextManager["Screen"]):
    """Shows nothing; the base of those that do.

    `begin` is called first and once, `show` as often as there may be something new, `end` with
    the last figures, if there were any. Leaving the context gives the terminal back.
    """

    def begin(self, headline: str) -> None:
        """The run begins."""

    def show(self, progress: Progress) -> None:
        """So far it is."""

    def end(self, progress: Progress) -> None:
        """It came to an end, good or bad."""

    def __exit__(self, *_: object) -> None:
        """The terminal is given back."""


class PlainLines(Screen):
    """Lines for a log."""

    def __init__(self) -> None:
        self._lines: ProgressLines | None = None

    def begin(self, headline: str) -> None:
        """Writes the headline."""
        _put(headline)
        self._lines = ProgressLines(lambda line: _put(f"  {line}"))

    def show(self, progress: Progress) -> None:
        """Writes a line if one is due."""
        if self._lines is not None:
            self._lines.show(progress)

    def end(self, progress: Progress) -> None:
        """Writes the last line."""
        if self._lines is not None:
            self._lines.end(progress)


class LiveBar(Screen):
    """A bar that grows, and the figures behind it.

    Args:
        console: on a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = RichProgress(
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            TextColumn(
                "{task.fields[figures]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            auto_refresh=False,
            expand=True,
            # What workers print goes past it anyway.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=1, figures="starting")

    def begin(self, headline: str) -> None:
        """Shows the headline and an empty bar."""
        self._console.print(Text(headline, style="bold"), soft_wrap=True)
        self._bar.start()
        self._bar.refresh()

    def show(self, progress: Progress) -> None:
        """Draws the bar anew."""
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total,
            figures=str(progress),
            refresh=True,
        )

    def end(self, progress: Progress) -> None:
        """Draws the bar for the last time."""
        self.show(progress)

    def __exit__(self, *_: object) -> None:
        """Shows the cursor again."""
        self._bar.stop()


def choose_screen(*, json: bool) -> Screen:
    """The screen for where the output goes.

    Args:
        json: whether standard output is for a machine.
    """
    stream = sys.stderr if json else sys.stdout
    console = Console(file=stream, highlight=False)
    if stream.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return LiveBar(console)
    return Screen() if json else PlainLines()


def show_text(lines: Iterable[Text]) -> None:
    """Writes lines to standard output: in colour on a terminal, never broken by us."""
    console = Console(file=sys.stdout, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)


def _put(line: str) -> None:
    print(line, flush=True)
