"""Whole programs, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import penstock

SOURCES = str(Path(penstock.__file__).parents[1])


def run_program(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "program.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SOURCES},
    )


def test_torch_may_be_imported_afterwards_and_is_not_before(tmp_path):
    done = run_program(
        """
import sys
import penstock
finders = list(sys.meta_path)
penstock.install(summary=True)
print("torch" in sys.modules, "numpy" in sys.modules)
from torch.utils.data import DataLoader
import torch.utils.data.dataloader as home
print(type(home.__spec__.loader).__name__, type(home.__loader__).__name__)
print(sys.meta_path == finders)
print(type(iter(DataLoader(range(3)))).__name__)
""",
        tmp_path,
    )
    assert done.stdout.splitlines() == [
        "False False",
        "SourceFileLoader SourceFileLoader",
        "True",
        "EpochRun",
    ]
    assert "  program.py:11: 1 loader, 1 epoch," in done.stderr


def test_torch_that_is_imported_after_uninstall_is_torch_s(tmp_path):
    done = run_program(
        """
import penstock
penstock.install()
penstock.uninstall()
from torch.utils.data import DataLoader
print(type(iter(DataLoader(range(3)))).__name__)
""",
        tmp_path,
    )
    assert done.stdout.strip() == "_SingleProcessDataLoaderIter"


def test_a_summary_that_was_written_is_not_written_again_at_the_end(tmp_path):
    done = run_program(
        """
import penstock
with penstock.install(summary=True):
    pass
penstock.install(summary=True)
""",
        tmp_path,
    )
    assert done.stderr.count("penstock: summary") == 2


def test_a_forked_process_has_penstock_and_leaves_the_summary_to_its_parent(tmp_path):
    done = run_program(
        """
import os, sys
import penstock
from torch.utils.data import DataLoader
penstock.install(summary=True)
loader = DataLoader(range(3))
if child := os.fork():
    os.waitpid(child, 0)
    list(loader)
else:
    print(type(iter(loader)).__name__, flush=True)
    sys.exit()
""",
        tmp_path,
    )
    assert done.stdout == "EpochRun\n"
    assert done.stderr.count("penstock: summary") == 1
    assert "1 epoch, 3 batches" in done.stderr


def test_a_program_s_own_classes_travel_to_workers(start_method, tmp_path):
    done = run_program(
        f"""
import penstock
from torch.utils.data import DataLoader, Dataset

penstock.install(summary=True)

class Data(Dataset):
    def __init__(self):
        self.inner = DataLoader(range(4), batch_size=4)
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return next(iter(self.inner))[index]

if __name__ == "__main__":
    loader = DataLoader(Data(), num_workers=1, multiprocessing_context={start_method!r})
    print([int(x) for x in loader])
""",
        tmp_path,
    )
    assert done.stdout == "[0, 1, 2, 3]\n", done.stderr
    assert "1 epoch, 4 batches, 4 samples" in done.stderr
