"""The table: the lines that `make bench` prints while it measures, and the same in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.outcome import Outcome, Spread
from benchmarks.results import Results
from benchmarks.row import LIMIT, MS_A_BATCH, PENSTOCK, TORCH, Required, Row, Unit

# The name of each column, and its width in the terminal.
WIDTHS = {
    "#": 3,
    "workload": 60,
    "unit": 11,
    "torch": 20,
    "Penstock": 20,
    "against torch": 22,
    "required": 9,
    "limit": 20,
    "against the limit": 20,
    "required of it": 14,
    "verdict": 8,
}
COLUMNS = tuple(WIDTHS)


def figure(value: float) -> str:
    """A number with three digits that mean something, and no exponent."""
    if value == float("inf"):
        return "∞"
    for digits, above in ((0, 99.95), (1, 9.995), (2, 0.9995)):
        if abs(value) >= above:
            return f"{value:.{digits}f}"
    return f"{value:.3f}"


def spread(value: Spread | None, scale: float = 1.0, suffix: str = "") -> str:
    """`median (least–most)`; of one figure, itself."""
    if value is None:
        return "–"
    median = f"{figure(value.median * scale)}{suffix}"
    if value.least == value.most:
        return median
    return f"{median} ({figure(value.least * scale)}–{figure(value.most * scale)})"


def cells(outcome: Outcome) -> list[str]:
    """A line of the table."""
    case, unit = outcome.case, outcome.case.unit
    return [
        str(outcome.row),
        outcome.title,
        unit.label,
        _cost(outcome, TORCH, unit),
        _cost(outcome, PENSTOCK, unit),
        spread(outcome.against(TORCH), suffix="×"),
        _required(case.torch),
        _cost(outcome, LIMIT, unit) if case.limit else "",
        spread(outcome.against(LIMIT), suffix="×") if case.limit else "",
        _required(case.limit),
        outcome.verdict,
    ]


def _cost(outcome: Outcome, contestant: str, unit: Unit) -> str:
    return spread(outcome.cost(contestant), unit.scale)


def _required(required: Required | None) -> str:
    return "" if required is None else str(required)


def text_line(columns: Iterable[str]) -> str:
    """A line for the terminal."""
    # A cell that is too long pushes the others on rather than being cut.
    padded = (f"{cell:<{width}}" for cell, width in zip(columns, WIDTHS.values(), strict=True))
    return " ".join(padded).rstrip()


def markdown(results: Results) -> str:
    """The table of a run, what was not measured, and what it was measured on."""
    lines = [_markdown_line(COLUMNS), "|---" * len(COLUMNS) + "|"]
    lines += [_markdown_line(cells(outcome)) for outcome in results.outcomes]
    reasons = [
        f"- {outcome.row}, {outcome.title}: {reason}"
        for outcome in results.outcomes
        for reason in outcome.reasons
    ]
    if reasons:
        lines += ["", "Not measured:", "", *reasons]
    lines += ["", measured_on(results)]
    return "\n".join(lines) + "\n"


def _markdown_line(columns: Iterable[str]) -> str:
    return "".join(f"| {cell} " for cell in columns) + "|"


def measured_on(results: Results) -> str:
    """A sentence on the machine and the run."""
    environment: dict[str, Any] = results.environment
    sizes = "quick sizes" if results.mode.endswith("quick") else "full sizes"
    return (
        f"Medians (least–most) of {rounds(results)} rounds, {sizes}, {results.date}, on "
        f"{environment['processor']}, {environment['cores_to_use']} cores, "
        f"{environment['memory_gib']} GiB; Python {environment['python']}, torch "
        f"{environment['torch']}, NumPy {environment['numpy']}, start method "
        f"{environment['start_method']}, Penstock at {environment['revision']}; load average "
        f"before {environment['load_before']}."
    )


def rounds(results: Results) -> str:
    """How many rounds counted: one number, or the least and the most of all lines."""
    counts = {len(made) for outcome in results.outcomes for made in outcome.figures.values()}
    if not counts:
        return "0"
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def rows_markdown(rows: Iterable[Row]) -> str:
    """What each row asks, how, and what is required: for the README."""
    lines = ["| # | row | question | how | against torch | against the limit |", "|---" * 6 + "|"]
    for row in rows:
        cases = [case for part in row.parts for case in part.cases]
        cells = (
            str(row.number),
            row.name,
            row.question,
            row.measured,
            _all_required(case.torch for case in cases),
            _all_required(case.limit for case in cases),
        )
        lines.append(_markdown_line(cells))
    return "\n".join(lines) + "\n"


def _all_required(required: Iterable[Required | None]) -> str:
    """Each requirement once, in the order of the cases."""
    return ", ".join(dict.fromkeys(str(it) for it in required if it))


PEER_WIDTHS = (32, 22, 24)


def peers_header() -> str:
    """The first line of the peers' table in the terminal."""
    return _peers_line(("loader", "ms a batch", "Penstock's rate to its"))


def peers_lines(outcome: Outcome) -> str:
    """The loaders of a row, the fastest first, and why others are missing."""
    lines = [f"{outcome.row}  {outcome.title}\n"]
    lines += [_peers_line(line) for line in _peers(outcome)]
    return "".join(lines)


def _peers_line(columns: Iterable[str]) -> str:
    padded = (f"{cell:<{width}}" for cell, width in zip(columns, PEER_WIDTHS, strict=True))
    return "   " + " ".join(padded).rstrip() + "\n"


def _peers(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """Name, cost, and how much faster Penstock is; or why there is no cost."""
    costs = {name: Spread.of(figures) for name, figures in outcome.figures.items()}
    for name in sorted(costs, key=lambda name: costs[name].median):
        ratio = "" if name == PENSTOCK else spread(outcome.against(name), suffix="×")
        yield name, spread(costs[name], MS_A_BATCH.scale), ratio
    for name, reason in outcome.missing.items():
        yield name, reason, ""


def peers_markdown(results: Results) -> str:
    """The peers' table of a run, and what it was measured on."""
    lines = ["| # | workload | loader | ms a batch | Penstock's rate to its |", "|---" * 5 + "|"]
    lines += [
        _markdown_line((str(outcome.row), outcome.title, *line))
        for outcome in results.outcomes
        for line in _peers(outcome)
    ]
    return "\n".join([*lines, "", measured_on(results)]) + "\n"
