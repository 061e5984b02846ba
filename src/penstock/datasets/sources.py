"""From what a user calls `source` to paths: a list, a glob or a folder.

    "photos"               a folder: every picture in it and below it
    "photos/**/*.jpg"      a glob: every file it matches, sorted
    ["a.jpg", "b.jpg"]     paths, in their order

Only names are looked at here; no file is opened.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from penstock.datasets.paths import PathTable
from penstock.errors import OptionError

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Source: TypeAlias = AnyPath | Iterable[AnyPath]

# What torchvision's ImageFolder takes for a picture, in any case of letters.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """The images of a source.

    Attributes:
        paths: their paths, in the order that numbers them.
        classes: the names of the sub-folders, sorted; empty if the source has no classes.
        labels: int64, for each path its number in `classes`; None if there are no classes.
    """

    paths: PathTable
    classes: list[str] = field(default_factory=list)
    labels: npt.NDArray[np.int64] | None = None


def list_source(source: Source, by_class: bool) -> Listing:
    """List the images of a source.

    Of a folder, files with one of `EXTENSIONS` count, at any depth and through symbolic links;
    names that begin with a dot do not. The order is torchvision's: sub-folder by sub-folder,
    sorted, and in each the folders below it and their files, sorted. Pictures directly in the
    folder come first.

    Args:
        source: a folder, a glob (`**` crosses folders; matched folders are left out), one file, or
            paths in any iterable that has an order.
        by_class: whether the sub-folders of a folder are classes. Then a folder may hold pictures
            or sub-folders with pictures, not both, and each sub-folder must have some.

    Raises:
        OptionError: the source does not exist, has no images, is not readable, is no source at all,
            or has no clear classes though `by_class` asks for them.
    """
    if isinstance(source, (str, bytes, os.PathLike)):
        name = os.fsdecode(source)
        if os.path.isdir(name):
            return _list_folder(name, by_class)
        return Listing(PathTable(_match(name)))
    if isinstance(source, (Set, Mapping)):
        raise OptionError(
            f"source is a {type(source).__name__}, whose order is not that of a list; images are "
            "numbered by their order, so pass sorted(source) or a list"
        )
    if not isinstance(source, Iterable):
        raise OptionError(
            f"source={source!r} is not a source of images; expected a folder, a glob such as "
            '"photos/**/*.jpg", or a list of paths'
        )
    paths = PathTable(source)
    if not len(paths):
        raise OptionError("source is an empty list of paths; it must name at least one image")
    return Listing(paths)


def _match(pattern: str) -> list[str]:
    if not pattern:
        raise OptionError("source is an empty string; expected a folder, a glob or a list of paths")
    if os.path.lexists(pattern):  # one file, even if its name looks like a glob
        return [pattern]
    if not glob.has_magic(pattern):
        home = " (~ is not expanded here; use os.path.expanduser)" if pattern[0] == "~" else ""
        raise OptionError(
            f"source={pattern!r} does not exist{home}; the current folder is {os.getcwd()!r}"
        )
    try:
        matches = sorted(p for p in glob.iglob(pattern, recursive=True) if not os.path.isdir(p))
    except ValueError as exc:  # a NUL byte
        raise OptionError(f"source={pattern!r} is not a usable glob: {exc}") from exc
    if not matches:
        raise OptionError(
            f"the glob source={pattern!r} matches no file; the current folder is {os.getcwd()!r}, "
            "** crosses folders, and names that begin with a dot match only if the glob says so"
        )
    return matches


def _list_folder(root: str, by_class: bool) -> Listing:
    direct, folders = _scan(root)
    found = {folder: list(_walk(os.path.join(root, folder))) for folder in folders}
    if not direct and not any(found.values()):
        raise OptionError(
            f"the folder source={root!r} holds no image; files with one of "
            f"{', '.join(EXTENSIONS)} count, hidden ones do not. For other names pass a glob or "
            "a list of paths"
        )
    classes = [folder for folder in folders if found[folder]]
    paths = PathTable([*direct, *(path for folder in folders for path in found[folder])])
    if not by_class or not classes:
        return Listing(paths)
    if direct:
        raise OptionError(
            f"the folder source={root!r} holds {len(direct)} pictures (such as {direct[0]!r}) "
            f"beside sub-folders with pictures ({_some(classes)}), so it is not clear whether the "
            "sub-folders are classes; move the pictures into a sub-folder, or give the labels "
            "by labels=, or pass a list or a glob to read without labels"
        )
    if len(classes) < len(folders):
        empty = [folder for folder in folders if not found[folder]]
        raise OptionError(
            f"these sub-folders of source={root!r} hold no image, so their classes have no "
            f"samples: {_some(empty)}; remove them, or pass a list of paths with labels="
        )
    counts = [len(found[folder]) for folder in classes]
    return Listing(paths, classes, np.repeat(np.arange(len(classes)), counts))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _scan(folder: str) -> tuple[list[str], list[str]]:
    """Return the paths of the pictures and the names of the sub-folders of one folder, sorted."""
    pictures, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.name.lower().endswith(EXTENSIONS):
                    pictures.append(os.path.join(folder, entry.name))
    except OSError as exc:
        # Passing over it would lose its pictures without a word.
        raise OptionError(
            f"the folder {folder!r} cannot be listed: {exc}; make it readable or leave it out of "
            "source"
        ) from exc
    return sorted(pictures), sorted(folders)


def _walk(folder: str) -> Iterator[str]:
    """Yield the pictures in and below a folder, sorted by folder, then by name."""
    reached: list[tuple[str, list[str]]] = []
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [(folder, ())]
    while pending:
        here, parents = pending.pop()
        status = os.stat(here)
        identity = (status.st_dev, status.st_ino)
        if identity in parents:  # a symbolic link to a folder above: the walk would not end
            continue
        pictures, folders = _scan(here)
        reached.append((here, pictures))
        pending += [(os.path.join(here, name), (*parents, identity)) for name in folders]
    for _, pictures in sorted(reached):
        yield from pictures
