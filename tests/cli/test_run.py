"""`penstock run`: a program runs as under python, and penstock does its loading."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli import program

SELF_PORTRAIT = """
import sys
print(sys.argv, __name__, __file__, __package__, __cached__, type(__loader__).__name__)
print(__spec__ and (__spec__.name, __spec__.origin), __doc__, sorted(globals()))
print(sys.path[0], sys.modules["__main__"].__dict__ is globals())
print(sys.excepthook is sys.__excepthook__, sys.stdout.errors, "torch" in sys.modules)
import neighbour
"""

# Written as torch's tutorials write it.
TUTORIAL = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
features = torch.randn(256, 8)
labels = (features.sum(dim=1) > 0).long()
training_data = TensorDataset(features[:192], labels[:192])
test_data = TensorDataset(features[192:], labels[192:])

batch_size = 32

# Create data loaders.
train_dataloader = DataLoader(training_data, batch_size=batch_size, shuffle=True, num_workers=2)
test_dataloader = DataLoader(test_data, batch_size=batch_size)

for X, y in test_dataloader:
    print(f"Shape of X [N, C]: {X.shape}")
    print(f"Shape of y: {y.shape} {y.dtype}")
    break

device = "cpu"


class NeuralNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)
        )

    def forward(self, x):
        return self.linear_relu_stack(x)


model = NeuralNetwork().to(device)
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-1)


def train(dataloader, model, loss_fn, optimizer):
    size = len(dataloader.dataset)
    model.train()
    for batch, (X, y) in enumerate(dataloader):
        X, y = X.to(device), y.to(device)

        # Compute prediction error
        pred = model(X)
        loss = loss_fn(pred, y)

        # Backpropagation
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

        loss, current = loss.item(), (batch + 1) * len(X)
        print(f"loss: {loss:>7f}  [{current:>5d}/{size:>5d}]")


def test(dataloader, model, loss_fn):
    size = len(dataloader.dataset)
    num_batches = len(dataloader)
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for X, y in dataloader:
            X, y = X.to(device), y.to(device)
            pred = model(X)
            test_loss += loss_fn(pred, y).item()
            correct += (pred.argmax(1) == y).type(torch.float).sum().item()
    test_loss /= num_batches
    correct /= size
    print(f"Test Error: Accuracy: {(100*correct):>0.1f}%, Avg loss: {test_loss:>8f}")


epochs = 3
for t in range(epochs):
    print(f"Epoch {t+1}-------------------------------")
    train(train_dataloader, model, loss_fn, optimizer)
    test(test_dataloader, model, loss_fn)
print("Done!")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").touch()
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def by_python(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=program.PATIENCE_S,
        **{"cwd": cwd, "env": program.environment(), **options},
    )


def by_penstock(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return program.run("run", *arguments, cwd=cwd, **options)


def assert_same(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program both ways: what it writes is the same, and how it ends."""
    want = by_python(*arguments, cwd=cwd)
    got = by_penstock("--no-summary", *arguments, cwd=cwd)
    assert got.stdout == want.stdout
    # For a module, python shows frames of its own before those of the program.
    assert got.stderr == re.sub(r'  File "[^"]*runpy.*\n(    .*\n)*', "", want.stderr)
    assert got.returncode == want.returncode
    return got


@pytest.mark.parametrize("path", ["program.py", "./program.py", "part/program.py"])
def test_a_script_finds_itself_as_under_python(path: str, folder: Path) -> None:
    write(folder / path, SELF_PORTRAIT)
    (folder / path).with_name("neighbour.py").touch()
    done = assert_same(path, "--help", "-m", "--", "--no-summary", "x y", cwd=folder)
    assert done.returncode == 0
    assert "'--help', '-m', '--', '--no-summary', 'x y'" in done.stdout


def test_a_script_behind_a_link_finds_its_neighbours(folder: Path) -> None:
    write(folder / "program.py", SELF_PORTRAIT)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "link.py").symlink_to(folder / "program.py")
    assert assert_same("elsewhere/link.py", cwd=folder).returncode == 0


@pytest.mark.parametrize("name", ["package", "package.part", "program"])
def test_a_module_finds_itself_as_under_python(name: str, folder: Path) -> None:
    write(folder / "package" / "__init__.py", "import sys; print(sys.argv)")
    for path in ("package/__main__.py", "package/part.py", "program.py"):
        write(folder / path, SELF_PORTRAIT)
    done = assert_same("-m", name, "--lr", "3", "-m", cwd=folder)
    assert done.returncode == 0, done.stderr


def test_a_folder_and_an_archive_with_a_main_module_run(folder: Path) -> None:
    main = write(folder / "app" / "__main__.py", SELF_PORTRAIT)
    (folder / "app" / "neighbour.py").touch()
    assert assert_same("app", "x", cwd=folder).returncode == 0
    with zipfile.ZipFile(folder / "app.zip", "w") as archive:
        archive.write(main, "__main__.py")
        archive.writestr("neighbour.py", "")
    assert assert_same("app.zip", "x", cwd=folder).returncode == 0


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(41)", 41),
        ("import sys; sys.exit('the reason')", 1),
        ("def f(): raise ValueError('the reason')\nf()", 1),
        ("try: 1/0\nexcept ZeroDivisionError: {}['key']", 1),
        ("import nowhere_to_be_found", 1),
        ("this is no Python", 1),
        ("import sys; sys.excepthook = lambda *a: print('hook', a[0]); 1/0", 1),
        ("import atexit; atexit.register(print, 'last'); 1/0", 1),
        ("import threading; threading.Timer(0.1, print, ['late']).start()", 0),
    ],
)
def test_every_end_of_a_program_is_the_one_it_has_under_python(
    ending: str, code: int, folder: Path
) -> None:
    write(folder / "program.py", ending)
    assert assert_same("program.py", cwd=folder).returncode == code


@pytest.mark.parametrize("ending", ["import sys; sys.exit(41)", "def f(): 1/0\nf()"])
def test_a_module_ends_as_under_python(ending: str, folder: Path) -> None:
    write(folder / "program.py", ending)
    assert assert_same("-m", "program", cwd=folder).returncode


def test_ctrl_c_shows_the_program_s_traceback_and_exits_with_130(folder: Path) -> None:
    write(folder / "program.py", "def f():\n    raise KeyboardInterrupt\nf()\n")
    want = by_python("program.py", cwd=folder)
    got = by_penstock("--no-summary", "program.py", cwd=folder)
    assert want.returncode == -signal.SIGINT
    assert got.returncode == 128 + signal.SIGINT
    assert got.stderr == want.stderr


def test_the_summary_is_the_last_word_on_standard_error(folder: Path) -> None:
    write(
        folder / "program.py",
        "import atexit, sys; atexit.register(print, 'last', file=sys.stderr); sys.exit('reason')",
    )
    done = by_penstock("program.py", cwd=folder)
    assert done.returncode == 1
    assert done.stdout == ""
    said, told = done.stderr.split("penstock: summary\n")
    assert said == "reason\nlast\n"
    assert told == (
        "  no torch.utils.data.DataLoader was made or iterated, and nothing was changed\n"
    )
    # To a file no colours.
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nowhere.py",), "can't open file"),
        (("empty",), "can't find '__main__' module"),
        (("-m", "nowhere"), "no module named 'nowhere'"),
        (("-m", "package"), "'package' is a package without a module '__main__'"),
        ((), "PROGRAM"),
        (("--no-such-option", "program.py"), "--no-such-option"),
    ],
)
def test_a_program_that_is_not_there_is_a_bad_argument(
    arguments: tuple[str, ...], named: str, folder: Path
) -> None:
    (folder / "empty").mkdir()
    write(folder / "package" / "__init__.py", "")
    write(folder / "program.py", "print('ran')")
    done = by_penstock(*arguments, cwd=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert "penstock: summary" not in done.stderr


def test_a_program_given_in_place_of_a_command_is_told_where_it_belongs() -> None:
    done = program.run("train.py", "--epochs", "3")
    assert done.returncode == 2
    assert "did you mean: penstock run train.py" in done.stderr


def test_a_missing_module_inside_the_program_s_package_is_the_program_s_own_error(
    folder: Path,
) -> None:
    write(folder / "package" / "__init__.py", "import nowhere_to_be_found")
    write(folder / "package" / "part.py", "")
    done = by_penstock("-m", "package.part", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "No module named 'nowhere_to_be_found'" in done.stderr
    assert "cli/run.py" not in done.stderr


PROCESSES = """
import multiprocessing, os, pickle, sys

class Point:
    def __init__(self, x):
        self.x = x

def double(point):
    return Point(point.x * 2)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print(sorted(point.x for point in pool.map(double, map(Point, range(4)))))
    print(Point.__module__, __name__)
else:
    assert __name__ == "__mp_main__", __name__
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("how", [("program.py",), ("-m", "program")])
def test_processes_that_the_program_starts_find_its_main_module(
    how: tuple[str, ...], method: str, folder: Path
) -> None:
    write(folder / "program.py", PROCESSES)
    done = assert_same(*how, method, cwd=folder)
    assert done.stdout == "[0, 2, 4, 6]\n__main__ __main__\n"


LOADERS = """
import sys
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index * index

def main():
    loader = DataLoader(
        Squares(), batch_size=4, num_workers=2, multiprocessing_context=sys.argv[1]
    )
    for batch in loader:
        print(type(loader) is DataLoader, batch)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_loader_s_classes_of_the_main_module_work(method: str, folder: Path) -> None:
    write(folder / "program.py", LOADERS)
    want = by_python("program.py", method, cwd=folder)
    got = by_penstock("program.py", method, cwd=folder)
    assert (got.stdout, got.returncode) == (want.stdout, 0), got.stderr
    assert "  program.py:13: 1 loader, 1 epoch, 3 batches, 10 samples in " in got.stderr
    assert "    2 workers, busy " in got.stderr


def test_a_classifier_as_in_torch_s_tutorial_prints_the_same_losses(folder: Path) -> None:
    write(folder / "quickstart.py", TUTORIAL)
    want = by_python("quickstart.py", cwd=folder)
    got = by_penstock("quickstart.py", cwd=folder)
    assert got.returncode == 0, got.stderr
    assert got.stdout == want.stdout
    assert got.stdout.count("loss: ") == 18 + 3
    assert want.stderr == ""
    figures = re.findall(r"quickstart.py:(\d+): 1 loader, (\d) epochs, (\d+) batches", got.stderr)
    # The first look at the test data is given up after one batch.
    assert figures == [("15", "3", "18"), ("16", "4", "7")]
    assert "gained: nothing that one run can show" in got.stderr


def test_neither_pillow_nor_anything_heavy_is_needed(folder: Path) -> None:
    hidden = folder / "hidden"
    for name in ("PIL", "torch", "numpy"):
        write(hidden / f"{name}.py", f"raise ModuleNotFoundError(name={name!r})")
    write(folder / "program.py", "print('ran')")
    done = by_penstock("program.py", cwd=folder, env=program.environment(hidden))
    assert (done.stdout, done.returncode) == ("ran\n", 0), done.stderr


def test_what_is_written_to_a_terminal_has_its_title_in_bold(folder: Path) -> None:
    write(folder / "program.py", "")
    ours, theirs = os.openpty()
    done = by_penstock("program.py", cwd=folder, stderr=theirs)
    os.close(theirs)
    assert os.read(ours, 1000).startswith(b"\x1b[1mpenstock: summary\x1b[0m\r\n  no ")
    os.close(ours)
    assert done.returncode == 0
