"""The control groups that this process is in: the limits of a container are theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

Version: TypeAlias = Literal[1, 2]


def control_groups(controller: str) -> Iterator[tuple[Path, Version]]:
    """This process's groups for one controller, from its own up to the root.

    Args:
        controller: what is limited, by the kernel's name for it: "memory" or "cpu".

    Yields:
        Each group's folder, and the version of control groups, after which its files are named.
    """
    try:
        membership = read_file(MEMBERSHIP).splitlines()
    except OSError:
        return
    for line in membership:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version: Version
        if controller in controllers.split(","):
            root, version = ROOT / controller, 1
        elif number == "0" and not controllers:
            root, version = ROOT, 2
        else:
            continue
        # In a container the path may be that outside of it, of which only the root is seen.
        below = root / path.lstrip("/")
        folder = below if below.is_dir() else root
        while True:
            yield folder, version
            if folder == root:
                break
            folder = folder.parent


def read_file(file: Path) -> str:
    """What a file of the kernel's says.

    Raises:
        OSError: it is not there, or not for this process to read.
    """
    return file.read_text().strip()
