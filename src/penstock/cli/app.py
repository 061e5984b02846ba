"""The arguments of each command. What a command does is imported when it runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import penstock
from penstock.cli.request import OnErrorChoice, Order, Request, StartMethod
from penstock.engines.processors import usable_processors
from penstock.errors import OptionError
from penstock.options import ErrorPolicy


class _Commands(TyperGroup):
    """The commands, and what is meant by none of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As everywhere; a program given without `run` is told where it belongs."""
        if args and args[0].endswith(".py") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"{args[0]!r} is no command; did you mean: penstock run {args[0]}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Errors are then plain lines, which a log and a narrow terminal keep whole.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {penstock.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Iterate datasets with worker processes: every sample once, or the reason why not."""


@app.command()
def iterate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="A folder of pictures, sub-folders included, or a quoted glob such as "
            "'photos/**/*.jpg'.",
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            show_default="one for each processor that it may use",
            help="Worker processes; 0 reads in this one.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Samples in a batch.")] = 32,
    size: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Scale and crop each picture to N×N pixels."),
    ] = 224,
    on_error: Annotated[
        OnErrorChoice,
        typer.Option(help="Stop at a picture that cannot be read, or skip and report it."),
    ] = OnErrorChoice.RAISE,
    max_skipped: Annotated[
        str | None,
        typer.Option(
            metavar="LIMIT",
            help="With --on-error skip: stop when more are skipped than this count (20) or "
            "fraction (0.01 or 1%); no limit unless given.",
        ),
    ] = None,
    order: Annotated[
        Order, typer.Option(help="Batches in the order of the plan, or as they are completed.")
    ] = Order.PLAN,
    start_method: Annotated[
        StartMethod | None, typer.Option(help="How workers start; chosen unless given.")
    ] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Read in random order.")] = False,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="What the random order is drawn from.")
    ] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if any picture was skipped.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Report as one JSON object on standard output.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Read a folder of pictures in batches, and report on it.

    Shows progress meanwhile; afterwards the rate, the waits, and every picture that was skipped.

    Exit codes: 0 complete, 1 it had to stop, 2 bad arguments, 3 some were skipped (with --strict),
    130 interrupted.
    """
    request = Request(
        source=source,
        workers=usable_processors() if workers is None else workers,
        batch_size=batch_size,
        size=size,
        on_error=on_error.value,
        max_skipped=_limit(max_skipped, on_error),
        in_order=order is Order.PLAN,
        start_method=start_method.value if start_method else None,
        shuffle=shuffle,
        seed=seed,
        strict=strict,
        json=json,
        traceback=traceback,
    )
    from penstock.cli.iterate import run

    raise typer.Exit(run(request))


@app.command(
    # Whatever follows the program's name belongs to the program.
    context_settings={"allow_interspersed_args": False},
    options_metavar="[-m] [--no-summary]",
)
def run(
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM",
            show_default=False,
            help="A Python program: its path, or with -m the name of a module.",
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGUMENTS", show_default=False, help="For the program."),
    ] = None,
    module: Annotated[
        bool, typer.Option("-m", help="The program is a module, as in python -m.")
    ] = False,
    no_summary: Annotated[
        bool, typer.Option("--no-summary", help="Say nothing at the end.")
    ] = False,
) -> None:
    """Run a Python program as it is, with penstock in place of torch's DataLoader.

    It runs as with the command python, to its exit code. At its end standard error gets a
    summary of what its loaders did.

    Exit codes: the program's own; 2 if there is no such program, 130 interrupted.
    """
    from penstock.cli.run import Handover, Program

    raise Handover(Program(program, tuple(arguments or ()), module, summary=not no_summary))


def _limit(text: str | None, on_error: OnErrorChoice) -> int | float | None:
    """The value of --max-skipped.

    Raises:
        typer.BadParameter: it is not a limit, or there is nothing to limit.
    """
    if text is None:
        return None
    hint = "'--max-skipped'"
    if on_error is OnErrorChoice.RAISE:
        raise typer.BadParameter(
            "nothing is skipped unless --on-error skip is given as well", param_hint=hint
        )
    try:
        limit = _number(text)
        ErrorPolicy("skip", limit)
    except (ValueError, OptionError) as error:
        raise typer.BadParameter(
            f"{text!r} is neither a count such as 20 nor a fraction from 0.0 to 1.0 such as 0.01 "
            "or 1%",
            param_hint=hint,
        ) from error
    return limit


def _number(text: str) -> int | float:
    if text.endswith("%"):
        return float(text[:-1]) / 100
    try:
        return int(text)
    except ValueError:
        return float(text)
