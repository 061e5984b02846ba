"""The chart of a run: how far ahead of torch each line is, and how near to the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.outcome import SHORT, Outcome
from benchmarks.results import Results
from benchmarks.row import LIMIT, TORCH, Required, at_least

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
AHEAD, BEHIND, NEEDED, OF_LIMIT = "#0072B2", "#D55E00", "#000000", "#009E73"
LINE_HEIGHT, WIDTH, RESOLUTION = 0.3, 13.0, 130
# A ratio without bound, as of a wait of nothing, is drawn as this.
MOST = 1e4


def draw(results: Results, path: Path) -> None:
    """Writes the chart as a PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    outcomes = results.outcomes
    figure, (left, right) = pyplot.subplots(
        1,
        2,
        sharey=True,
        width_ratios=(2, 1),
        figsize=(WIDTH, LINE_HEIGHT * len(outcomes) + 1.8),
        layout="constrained",
    )
    figure.suptitle(
        f"Penstock beside torch's DataLoader and the machine's limit ({results.mode} sizes)"
    )
    places = range(len(outcomes))
    left.set_yticks(places, [f"{outcome.row}  {outcome.title}" for outcome in outcomes])
    left.set_ylim(len(outcomes) - 0.4, -0.6)
    left.set_xscale("log")
    left.set_xlabel("times as good as torch's DataLoader: as fast, or as little of it (log scale)")
    left.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    left.xaxis.set_minor_formatter(lambda value, _: "")
    left.axvline(1, color="grey", linewidth=0.8)
    right.set_xlabel("share of the limit reached")
    right.set_xlim(0, 1.3)
    right.axvline(1, color="grey", linewidth=0.8)
    for place, outcome in zip(places, outcomes, strict=True):
        _bar(left, place, outcome, TORCH, outcome.case.torch, AHEAD, least=1.0)
        if outcome.case.limit:
            _bar(right, place, outcome, LIMIT, outcome.case.limit, OF_LIMIT, least=0.0)
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    _explain(figure)
    figure.savefig(path, dpi=RESOLUTION)
    pyplot.close(figure)


def advantage(outcome: Outcome, other: str) -> float | None:
    """How many times as good as another: ratios that must be small are turned round."""
    required = outcome.case.torch if other == TORCH else outcome.case.limit
    ratio = outcome.against(other)
    return None if ratio is None else _turned(required or at_least(1), ratio.median)


def _turned(required: Required, ratio: float) -> float:
    if required.at_least:
        return ratio
    return 1 / ratio if ratio else float("inf")


def _bar(
    axes: Any,
    place: int,
    outcome: Outcome,
    other: str,
    required: Required | None,
    colour: str,
    *,
    least: float,
) -> None:
    """A bar from `least` to the ratio, the spread upon it, and a mark at what is required."""
    reached, ratio = advantage(outcome, other), outcome.against(other)
    bound = _turned(required, required.bound) if required else None
    if reached is None or ratio is None:
        axes.annotate(" not measured", (least, place), va="center", fontsize=8, color=BEHIND)
    else:
        shown = min(reached, MOST)
        is_behind = bound is not None and reached < bound
        axes.barh(place, shown - least, left=least, color=BEHIND if is_behind else colour)
        ends = sorted(_turned(required or at_least(1), end) for end in (ratio.least, ratio.most))
        axes.plot([min(end, MOST) for end in ends], [place, place], color="grey", linewidth=1)
        # Beside the bar, its spread and the mark, whichever reaches furthest.
        clear = max(shown, min(ends[1], MOST), least, bound or least)
        axes.annotate(
            f"{reached:.3g}×",
            (clear, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    if bound is not None:
        axes.plot([bound, bound], [place - 0.42, place + 0.42], color=NEEDED, linewidth=2)


def _explain(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure.legend(
        handles=[
            Patch(color=AHEAD, label="against torch"),
            Patch(color=OF_LIMIT, label="against the limit"),
            Patch(color=BEHIND, label=f"less than required ({SHORT})"),
            Line2D([], [], color=NEEDED, linewidth=2, label="required"),
            Line2D([], [], color="grey", linewidth=1, label="least to most of the rounds"),
        ],
        loc="outside lower center",
        ncols=5,
        frameon=False,
    )
