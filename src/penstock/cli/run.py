"""`penstock run`: somebody else's program, as python would run it, with penstock installed.

The program becomes the main module itself, and stays it after its last line: what it starts with
multiprocessing finds it there, as does what it has registered for its end.
"""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import pkgutil
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from penstock.cli import EXIT_INTERRUPTED

EXIT_FAILED = 1
EXIT_NO_PROGRAM = 2


@dataclass(frozen=True)
class Program:
    """What to run.

    Attributes:
        target: the path of a file, of a folder or archive with a `__main__.py`, or the name of a
            module.
        arguments: for the program.
        module: whether `target` is the name of a module.
        summary: whether to write one at the end.
    """

    target: str
    arguments: tuple[str, ...] = ()
    module: bool = False
    summary: bool = True


class Handover(BaseException):
    """Leaves the machinery of the command line, to run a program behind it.

    Args:
        program: what to run.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.program = program


class _NotFoundError(Exception):
    """There is no such program."""


def run(program: Program) -> int:
    """Runs a program to its end.

    Returns:
        The exit code.

    Raises:
        SystemExit: the program's own.
    """
    from penstock.takeover import install

    # The first to be registered for the end of the program is the last to be called.
    takeover = install(summary=program.summary)
    try:
        code = _prepare(program)
        exec(code, vars(sys.modules["__main__"]))
    except SystemExit:
        raise
    except _NotFoundError as error:
        takeover.uninstall(quietly=True)
        print(f"penstock: error: {error}", file=sys.stderr)
        return EXIT_NO_PROGRAM
    except BaseException as error:
        _show(error)
        return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_FAILED
    return 0


def _prepare(program: Program) -> CodeType:
    """Makes the main module, and all that python sets up for it; returns its code."""
    if program.module:
        return _prepare_module(program)
    # As python does: absolute, and otherwise as it was given.
    path = os.path.join(os.getcwd(), program.target)  # noqa: PTH109, PTH118
    finder = pkgutil.get_importer(path)
    if finder is not None:
        return _prepare_folder(program, path, finder)
    sys.argv = [program.target, *program.arguments]
    _set_first_path(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        raise _NotFoundError(f"can't open file {path!r}: {error.strerror}") from error
    _set_main(path, None, SourceFileLoader("__main__", path))
    return compile(source, path, "exec", dont_inherit=True)


def _prepare_folder(program: Program, path: str, finder: Any) -> CodeType:
    spec: ModuleSpec | None = finder.find_spec("__main__")
    if spec is None:
        raise _NotFoundError(f"can't find '__main__' module in {path!r}")
    sys.argv = [program.target, *program.arguments]
    _set_first_path(path)
    return _set_main_from(spec)


def _prepare_module(program: Program) -> CodeType:
    _set_first_path(str(Path.cwd()))
    # What python has there while it looks for the module, and imports its packages.
    sys.argv = ["-m", *program.arguments]
    name = program.target
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        # Any other that is missing is the program's own trouble.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    if spec is None or spec.loader is None:
        if name != program.target:
            raise _NotFoundError(f"{program.target!r} is a package without a module '__main__'")
        raise _NotFoundError(f"no module named {name!r}")
    sys.argv[0] = spec.origin or program.target
    return _set_main_from(spec)


def _set_main_from(spec: ModuleSpec) -> CodeType:
    loader: Any = spec.loader
    _set_main(spec.origin or "", spec, loader)
    code = loader.get_code(spec.name)
    if not isinstance(code, CodeType):
        raise _NotFoundError(f"there is no code in {spec.origin or spec.name!r}")
    return code


def _set_main(file: str, spec: ModuleSpec | None, loader: object) -> None:
    main = ModuleType("__main__")
    vars(main).update(
        __builtins__=builtins,
        __annotations__={},
        __file__=file,
        __cached__=spec.cached if spec is not None else None,
        __loader__=loader,
        __package__=spec.parent if spec is not None else None,
        __spec__=spec,
    )
    sys.modules["__main__"] = main


def _set_first_path(folder: str) -> None:
    """Puts the program's folder where python has put that of ours."""
    if not getattr(sys.flags, "safe_path", False):  # Python 3.11
        sys.path[0] = folder


def _show(error: BaseException) -> None:
    """Shows an exception as python does: from the program's own first line."""
    traceback = error.__traceback__
    while traceback is not None and _is_ours(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    sys.excepthook(type(error), error.with_traceback(traceback), traceback)


def _is_ours(file: str) -> bool:
    return file == __file__ or file.startswith("<frozen ")
