"""Results as files: every figure of every round, and what they were measured on."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.outcome import Outcome
from benchmarks.row import Case, Required, Unit

FOLDER = Path(__file__).parent / "results"
# Raised whenever a file written before can no longer be read.
VERSION = 1


@dataclass(frozen=True)
class Results:
    """A run.

    Attributes:
        date: YYYY-MM-DD.
        mode: "full" or "quick".
        environment: see `environment.describe`.
        outcomes: a line of the table each.
    """

    date: str
    mode: str
    environment: dict[str, Any]
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of its files, without a suffix."""
        return f"{self.date}-{self.mode}"

    @property
    def passed(self) -> bool:
        """Whether nothing falls short."""
        return not any(outcome.is_short for outcome in self.outcomes)


def write(results: Results, folder: Path = FOLDER) -> Path:
    """Writes a run to a file of its name; returns the path."""
    content = {
        "version": VERSION,
        "date": results.date,
        "mode": results.mode,
        "environment": results.environment,
        "outcomes": [
            # The verdict is for those who read the file; it follows from the rest.
            {**dataclasses.asdict(outcome), "verdict": outcome.verdict}
            for outcome in results.outcomes
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{results.name}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> Results:
    """The run that a file holds.

    Raises:
        ValueError: the file is of another version.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["version"] != VERSION:
        raise ValueError(f"{path.name} is of version {content['version']}, not {VERSION}")
    outcomes = [_outcome(saved) for saved in content["outcomes"]]
    return Results(content["date"], content["mode"], content["environment"], outcomes)


def latest(folder: Path = FOLDER, mode: str = "full") -> Path | None:
    """The newest file of a mode; None if there is none."""
    return max(folder.glob(f"????-??-??-{mode}.json"), default=None)


def _outcome(saved: dict[str, Any]) -> Outcome:
    case = saved["case"]
    torch, limit = (Required(**case[key]) if case[key] else None for key in ("torch", "limit"))
    return Outcome(
        saved["row"],
        saved["row_name"],
        Case(case["name"], Unit(**case["unit"]), torch, limit),
        saved["figures"],
        saved["missing"],
        saved["judged"],
    )
