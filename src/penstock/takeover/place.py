"""Where in the user's code something happens."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_OWN = str(Path(__file__).parents[1]) + os.sep
_STANDARD = tuple(
    os.path.join(sysconfig.get_path(name), "")  # noqa: PTH118 - compared as text
    for name in ("stdlib", "platstdlib")
)
# Wherever packages are installed, they are in a folder of such a name.
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@dataclass(frozen=True, order=True)
class Place:
    """A line of code that made a loader.

    Attributes:
        file: its path, or what stands for it (`<stdin>`).
        line: its number.
        through: the module of a framework that the line called, and that made the loader; empty
            where the line made it itself.
        iterated: whether the loader came from elsewhere (made before, copied, unpickled), and
            this is where it was iterated first.
    """

    file: str
    line: int
    through: str = ""
    iterated: bool = False

    def __str__(self) -> str:
        text = f"{_shown(self.file)}:{self.line}"
        if self.through:
            text += f" (through {self.through})"
        return f"{text} (iterated there)" if self.iterated else text


def calling_place(*, iterated: bool = False) -> Place:
    """The nearest line on the stack that belongs to the user's own code.

    Where there is none, the nearest that is neither torch's nor ours.
    """
    nearest: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not _is_machinery(frame):
            if nearest is None:
                nearest = frame
            if not _is_library(frame.f_code.co_filename):
                break
        frame = frame.f_back
    found = frame or nearest
    if found is None:
        return Place("<unknown>", 0, iterated=iterated)
    through = ""
    if nearest is not None and nearest is not found and frame is not None:
        through = str(nearest.f_globals.get("__name__", ""))
    return Place(found.f_code.co_filename, found.f_lineno, through, iterated)


def _is_machinery(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    file = frame.f_code.co_filename
    return module.partition(".")[0] == "torch" or file.startswith((_OWN, "<frozen "))


def _is_library(file: str) -> bool:
    return any(part in file for part in _INSTALLED) or file.startswith(_STANDARD)


def _shown(file: str) -> str:
    """A path as short as it can be and still be found."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file
