"""What users may rely on, written down once more so that it cannot change by accident."""

import subprocess
import sys

import penstock


def test_the_public_names_are_these():
    assert penstock.__all__ == [
        "BatchTimeoutError",
        "DataLoader",
        "DeathCertificate",
        "MemoryBudgetError",
        "OptionError",
        "PenstockError",
        "Sample",
        "SampleError",
        "SampleKilledWorker",
        "SampleTimeout",
        "SharedSequence",
        "StateError",
        "Statistics",
        "TooManySkippedError",
        "WorkerDiedError",
        "concurrent",
        "datasets",
        "install",
        "iterate",
        "uninstall",
        "warm_up",
    ]
    assert set(penstock.__all__) <= set(dir(penstock))


def test_every_public_name_is_there_and_says_what_it_is():
    for name in penstock.__all__:
        assert getattr(penstock, name).__doc__, name


def test_an_unknown_name_is_refused_as_usual():
    assert not hasattr(penstock, "dataloader")


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, penstock; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_concurrent_stays_a_function_however_it_is_imported():
    code = (
        "from penstock.combine import concurrent; import penstock; "
        "print(callable(penstock.concurrent))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
