"""`penstock run` on programs written as their frameworks' tutorials write them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Two processes one after the other, and each imports a framework.
pytestmark = pytest.mark.timeout(180)

PROGRAMS = Path(__file__).parent / "programs"

# What is the same in every run of a program that draws the same random numbers.
TOLD = re.compile(r"^(?:samples|steps|train_loss|eval_loss|val_loss): .*$", re.MULTILINE)
EPOCHS = re.compile(r"changed: (\d+) epochs of torch.utils.data.DataLoader ran by penstock")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("framework", "name", "lines", "epochs"),
    [
        # Two epochs of training and two of validation.
        ("lightning", "lightning_autoencoder.py", 2, 4),
        # As many, and the evaluation at the end.
        ("transformers", "trainer_classification.py", 3, 5),
    ],
)
def test_a_tutorial_run_with_penstock_ends_as_it_does_without(
    framework: str, name: str, lines: int, epochs: int, tmp_path: Path
) -> None:
    pytest.importorskip(framework, reason="needs the extra 'ecosystem'")
    program = str(PROGRAMS / name)
    expected = TOLD.findall(run(tmp_path, program).stdout)
    assert len(expected) == lines
    done = run(tmp_path, "-m", "penstock", "run", program)
    assert TOLD.findall(done.stdout) == expected
    summary = EPOCHS.search(done.stderr)
    assert summary is not None, done.stderr
    assert int(summary[1]) == epochs
