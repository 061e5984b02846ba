"""The table and the chart of a run that was written down; and the README's table.

python -m benchmarks.report benchmarks/results/2026-01-31-full.json
python -m benchmarks.report --readme

"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import chart, results, table
from benchmarks.results import Results

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->\n"


def write(run: Results, folder: Path = results.FOLDER) -> list[Path]:
    """Writes the figures, the table and the chart of a run; returns the paths.

    Without matplotlib there is no chart.
    """
    written = [results.write(run, folder)]
    written += render(run, folder)
    return written


def render(run: Results, folder: Path) -> list[Path]:
    """Writes the table and the chart."""
    text, image = folder / f"{run.name}.md", folder / f"{run.name}.png"
    text.write_text(f"# Benchmarks, {run.date}\n\n{table.markdown(run)}", encoding="utf-8")
    try:
        chart.draw(run, image)
    except ImportError:
        print("no chart: pip install -c constraints.txt -e '.[bench]'", file=sys.stderr)
        return [text]
    return [text, image]


def into_readme(readme: str, run: Results) -> str:
    """The text of a README with this run's table and chart between the two marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no marks {BEGIN.strip()} and {END.strip()}")
    picture = f"![The same as a chart](benchmarks/results/{run.name}.png)"
    return f"{before}{BEGIN}\n{table.markdown(run)}\n{picture}\n\n{END}{after}"


def main() -> int:
    """Writes what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="by default the latest full run")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    path = arguments.file or results.latest()
    if path is None:
        parser.error(f"no full run in {results.FOLDER.name}/: make bench writes one")
    run = results.read(path)
    render(run, path.parent)
    if arguments.readme:
        README.write_text(into_readme(README.read_text(encoding="utf-8"), run), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
